"""Precisions: what a device offers, what is refused, what a run records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cpanet.errors import UserError
from cpanet.runtime import precision as precision_module
from cpanet.runtime import prepare, start
from cpanet.runtime.precision import (
    LEVELS,
    bfloat16_on_cpu,
    bound,
    environment,
    offered,
    remember_doctor,
    resolve,
)
from tests.hydra_app import run_here
from tests.sweep_runs import TINY


@pytest.mark.parametrize(("device", "expected"), [("cpu", "fp32"), ("cuda", "tf32")])
def test_auto_is_the_devices_own(device, expected, monkeypatch):
    monkeypatch.setattr(precision_module, "bfloat16_on_cpu", lambda: None)
    assert resolve("auto", device) == expected


@pytest.mark.parametrize("precision", LEVELS)
def test_cuda_offers_all_and_a_cpu_without_bfloat16_one(precision, monkeypatch):
    monkeypatch.setattr(precision_module, "bfloat16_on_cpu", lambda: None)
    assert resolve(precision, "cuda") == precision
    if precision == "fp32":
        assert resolve(precision, "cpu") == "fp32"
    else:
        with pytest.raises(UserError, match=f"precision={precision} cannot be had on device=cpu"):
            resolve(precision, "cpu")


def test_a_processor_offers_bfloat16_by_its_flags(monkeypatch):
    assert bfloat16_on_cpu({}, "flags : fpu avx2 amx_tile amx_bf16") == "native"
    assert bfloat16_on_cpu({}, "flags : avx512f avx512_bf16") == "native"
    assert bfloat16_on_cpu({}, "flags : avx512f avx2") is None
    assert bfloat16_on_cpu({"CPANET_BF16": "emulate"}, "flags : avx2") == "rounded"
    assert bfloat16_on_cpu({"CPANET_BF16": "off"}, "flags : amx_bf16") is None
    monkeypatch.setattr(precision_module, "bfloat16_on_cpu", lambda: "native")
    assert offered("cpu") == ("fp32", "bf16")
    assert resolve("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(
    ("passed", "speed", "chosen"), [(True, 2.5, "bf16"), (True, 0.9, "fp32"), (False, 3.0, "fp32")]
)
def test_auto_takes_bfloat16_where_the_doctor_found_it_right_and_faster(
    passed, speed, chosen, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision_module, "bfloat16_on_cpu", lambda: "native")
    assert resolve("auto", "cpu") == "fp32"  # not examined yet
    remember_doctor(passed, speed)
    assert resolve("auto", "cpu") == chosen


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
    ("precision", "patched", "level"),
    [("tf32", True, 1), ("tf32", False, 0), ("bf16", True, 2), ("bf16", False, 0), ("fp16", False, 3)],
)
def test_jittor_is_told_the_precision_also_where_it_is_its_own_choice(monkeypatch, precision, patched, level):
    """Without it cuBLAS would take products in float32 where TF32 is recorded. Level 1 of Jittor as it is: halves."""
    import jittor

    before = jittor.flags.use_tensorcore
    on_cuda = replace(prepare("cpu"), device="cuda", precision=precision, patched=patched)
    monkeypatch.setattr(start, "_runtime", on_cuda)
    try:
        assert prepare().precision == precision
        assert jittor.flags.use_tensorcore == level
    finally:
        jittor.flags.use_tensorcore = before


def test_a_process_bound_to_float32_stays_so(monkeypatch):
    assert bound({"NVIDIA_TF32_OVERRIDE": "0"}) == "fp32"
    assert bound({}) == "tf32"
    on_cuda = replace(prepare("cpu"), device="cuda", precision="fp32")
    monkeypatch.setattr(start, "_runtime", on_cuda)
    with pytest.raises(UserError, match="run at fp32 in this process already"):
        prepare(precision="tf32")


def test_an_impossible_precision_is_refused_before_anything_is_written(tmp_path, capfd):
    assert run_here(tmp_path, *TINY, "precision=fp16") == 2
    assert "precision=fp16 cannot be had on device=cpu, which offers fp32" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
