"""Precisions: what a device offers, what is refused, what a run records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cpanet.errors import UserError
from cpanet.runtime import prepare, start
from cpanet.runtime.precision import LEVELS, bound, environment, resolve
from tests.hydra_app import run_here
from tests.sweep_runs import TINY


@pytest.mark.parametrize(("device", "expected"), [("cpu", "fp32"), ("cuda", "tf32")])
def test_auto_is_the_devices_own(device, expected):
    assert resolve("auto", device) == expected


@pytest.mark.parametrize("precision", LEVELS)
def test_cuda_offers_all_and_a_cpu_one(precision):
    assert resolve(precision, "cuda") == precision
    if precision == "fp32":
        assert resolve(precision, "cpu") == "fp32"
    else:
        with pytest.raises(UserError, match=f"precision={precision} cannot be had on device=cpu"):
            resolve(precision, "cpu")


def test_float32_on_cuda_is_not_tf32_in_disguise():
    assert environment("fp32") == {"NVIDIA_TF32_OVERRIDE": "0"}
    assert environment("tf32") == {}


def test_a_running_jittor_keeps_its_precision_and_takes_another():
    if prepare().device == "cuda":
        pytest.skip("a CPU is needed")
    assert prepare(precision="fp32").precision == "fp32"
    with pytest.raises(UserError, match="precision=fp16 cannot be had on device=cpu"):
        prepare(precision="fp16")


@pytest.mark.parametrize(
    ("precision", "mended", "level"),
    [("tf32", True, 1), ("tf32", False, 0), ("bf16", True, 2), ("bf16", False, 0), ("fp16", False, 3)],
)
def test_jittor_is_told_the_precision_also_where_it_is_its_own_choice(monkeypatch, precision, mended, level):
    """Without it cuBLAS would take products in float32 where TF32 is recorded. Level 1 of Jittor as it is: halves."""
    import jittor

    before = jittor.flags.use_tensorcore
    on_cuda = replace(prepare("cpu"), device="cuda", precision=precision, mended=mended)
    monkeypatch.setattr(start, "_runtime", on_cuda)
    try:
        assert prepare().precision == precision
        assert jittor.flags.use_tensorcore == level
    finally:
        jittor.flags.use_tensorcore = before


def test_a_process_bound_to_float32_stays_so():
    assert bound({"NVIDIA_TF32_OVERRIDE": "0"}) == "fp32"
    assert bound({}) == "tf32"
    on_cuda = replace(prepare("cpu"), device="cuda", precision="fp32")
    with pytest.raises(UserError, match="run at fp32 in this process already"):
        start._at(on_cuda, "tf32")


def test_an_impossible_precision_is_refused_before_anything_is_written(tmp_path, capfd):
    assert run_here(tmp_path, *TINY, "precision=bf16") == 2
    assert "precision=bf16 cannot be had on device=cpu, which offers fp32" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
