"""The benchmarks' own arithmetic, and one small run of both sides on the real path. No timing is asserted."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import agreement, evaluate, loading, measure, precision, report, step
from benchmarks.workload import Workload
from cpanet.errors import UserError

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the benchmark extra is not installed"
)


def result(seconds: list[float], peak: int) -> dict:
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "gpu_bytes": None,
        "versions": {"jittor": "1", "torch": "2"},
    }


def test_ratios_say_how_much_faster_and_smaller_the_project_is() -> None:
    sides = {"project": measure.Side(), "reference": measure.Side()}
    sides["project"].add(result([1.0, 2.0, 3.0], 50))
    sides["reference"].add(result([4.0, 6.0, 8.0], 100))
    sides["reference"].add(result([6.0, 6.0, 6.0], 90))
    record = measure.compared({}, sides)
    assert record["speed_ratio"] == 3.0
    assert record["memory_ratio"] == 0.5
    assert record["sides"]["project"]["summary_seconds"]["minimum"] == 1.0
    json.dumps(record)


def outputs(**changes: float) -> dict[str, np.ndarray]:
    found = {
        "logits": [1.0, -10.0],
        "main loss": 0.5,
        "auxiliary loss": 0.25,
        "a.weight": [3.0, 4.0],
        "a.bias": [0.0],
    }
    return {name: np.array(value) + changes.get(name, 0.0) for name, value in found.items()}


def test_agreement_finds_the_largest_difference_of_each_kind() -> None:
    changed = outputs(logits=0.1, **{"auxiliary loss": 0.05, "a.weight": 0.5})
    found = agreement.compare(changed, outputs())
    assert found.logits == pytest.approx(0.01)
    assert found.losses == pytest.approx(0.2)
    assert found.gradients == pytest.approx(0.5 * 2**0.5 / 5)
    assert found.worst_gradient == "a.weight"


def test_agreement_measures_vanishing_gradients_against_all_of_them() -> None:
    assert agreement.compare(outputs(**{"a.bias": 1e-7}), outputs()).gradients == pytest.approx(2e-4)


def test_agreement_refuses_other_tensors() -> None:
    with pytest.raises(UserError, match=r"a\.bias"):
        agreement.compare({k: v for k, v in outputs().items() if k != "a.bias"}, outputs())


def test_differing_pixels_are_counted_over_all_labelled_ones() -> None:
    reference = [[30, 40, 60, 70], [0, 0, 100, 100]]  # 100 labelled pixels in each episode
    project = [[29, 40, 61, 71], [0, 0, 100, 100]]
    assert evaluate.differing(project, reference) == 0.01


@pytest.mark.parametrize(("option", "value"), [("size", 100), ("width", 40), ("batch", 0), ("threads", 0)])
def test_impossible_workloads_are_refused(option: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--{option} {value}"):
        Workload(**{option: value})


@needs_torch
def test_flop_are_those_of_the_layers() -> None:
    """At 32×32, width 16: the textbook's convolutions of one episode, worked out layer by layer."""
    from benchmarks.side_reference import textbook_flop

    vgg = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), *[(256, 256, 8)] * 2]
    vgg += [(256, 512, 4), *[(512, 512, 4)] * 2]
    backbone = sum(9 * i * o * side**2 for i, o, side in vgg)
    cpp = 4 * 16 * 8 * 4 + 2 * 4 * 1 * 8  # four 1×1 convolutions on 2×2, two products with one pooled key
    head = 2 * 768 * 16 * 4 + 32 * 16 * 4 + 3 * 9 * 16 * 16 * 4 + cpp
    squeeze = 4 * 16 * 16 * (16**2 + 8**2) + 48 * 16 * 32**2 + 2 * 9 * 16 * 16 * 32**2 + 16 * 2 * 32**2
    cbam = 2 * 2 * 16 * 1 + 49 * 2 * 32**2
    counted = textbook_flop(Workload(size=32, batch=1, width=16))
    assert counted["evaluation"] == 2 * (2 * backbone + head + squeeze + cbam)


def record_of(benchmark: Any, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What ``python -m benchmarks.… --size 32 --width 16 <options>`` writes, run in this process."""
    out = tmp_path / "record.json"
    command = f"{benchmark.__name__} --size 32 --width 16 {options} --out"
    monkeypatch.setattr("sys.argv", [*command.split(), str(out)])
    assert benchmark.main() == 0
    return json.loads(out.read_text())


@needs_torch
@pytest.mark.slow
def test_step_compares_both_sides_and_writes_what_it_found(tmp_path: Path, capsys, monkeypatch) -> None:
    record = record_of(step, "--rounds 1 --repeats 2 --warmup 1", tmp_path, monkeypatch)
    assert record["agreement"]["logits"] < 1e-4
    assert len(record["sides"]["project"]["seconds"]) == len(record["sides"]["reference"]["seconds"]) == 2
    assert record["machine"]["cpu"]
    assert "peak memory" in capsys.readouterr().out


def test_table_shows_medians_and_ratio() -> None:
    sides = {"project": measure.Side(), "reference": measure.Side()}
    sides["project"].add(result([1.0], 2**30))
    sides["reference"].add(result([2.5], 2**31))
    record = {"workload": Workload().asdict(), "machine": {"load_before": 0.0, "gpu": "a GPU"}}
    console = Console(record=True, width=100, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        report.show(measure.compared(record, sides), "step", console)
    assert "2.50 × as fast" in shown.get()
    assert "0.50 of it" in shown.get()


@pytest.mark.slow
def test_loss_curves_at_every_precision_are_compared(tmp_path: Path, monkeypatch) -> None:
    record = record_of(precision, "--steps 12 --device cpu", tmp_path, monkeypatch)
    assert list(record["losses"]) == ["fp32", "fp32 again"]
    assert len(record["losses"]["fp32"]) == 12
    assert record["largest_distance"]["fp32 again"] == 0.0  # the same command, the same digits


@pytest.mark.slow
def test_loading_is_timed_beside_one_batch(tmp_path: Path, monkeypatch) -> None:
    record = record_of(loading, "--rounds 1 --repeats 2 --warmup 1 --workers 1", tmp_path, monkeypatch)
    assert [len(side["seconds"]) for side in record["sides"].values()] == [2, 2]


def test_a_curve_is_smoothed_over_ten_steps() -> None:
    assert precision.smoothed([float(i) for i in range(20)])[0] == pytest.approx(4.5)
    assert precision.smoothed([1.0, 3.0]) == pytest.approx([2.0])
