"""The benchmarks' own arithmetic, and one small run of both sides on the real path. No timing is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import (
    agreement,
    evaluate,
    loading,
    measure,
    memory,
    precision,
    profile,
    profiler,
    report,
    step,
    supports,
)
from benchmarks.workload import Workload, workloads
from cpanet.errors import UserError
from cpanet.runtime.cuda.probe import GIB, CudaReport, Driver, Gpu
from cpanet.runtime.cuda.toolkit import Toolkit

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the benchmark extra is not installed"
)


def result(seconds: list[float], peak: int) -> dict:
    versions = {"jittor": "1", "torch": "2"}
    return {"seconds": seconds, "peak_bytes": peak, "gpu_bytes": None, "versions": versions}


def sides(**results: list[dict]) -> dict[str, dict]:
    return {name: measure.side(found) for name, found in results.items()}


def test_ratios_say_how_much_faster_and_smaller_the_project_is() -> None:
    reference = [result([4.0, 6.0, 8.0], 100), result([6.0, 6.0, 6.0], 90)]
    record = measure.compared(sides(project=[result([1.0, 2.0, 3.0], 50)], reference=reference))
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
    """The record that ``python -m benchmarks.… --size 32 --width 16 <options>`` writes, run in this process."""
    out = tmp_path / "record.json"
    command = f"{benchmark.__name__} --size 32 --width 16 {options} --out"
    monkeypatch.setattr("sys.argv", [*command.split(), str(out)])
    assert report.run("name", benchmark.arguments(), benchmark.measured, benchmark.shown) == 0
    return json.loads(out.read_text())


@needs_torch
@pytest.mark.slow
def test_step_compares_both_sides_and_writes_what_it_found(tmp_path: Path, capsys, monkeypatch) -> None:
    record = record_of(
        step, "--rounds 1 --repeats 2 --warmup 1 --in-a-row 2 --episodes 4", tmp_path, monkeypatch
    )
    assert record["agreement"]["logits"] < 1e-4
    assert len(record["sides"]["project"]["seconds"]) == len(record["sides"]["reference"]["seconds"]) == 2
    assert record["machine"]["cpu"]
    assert record["machine"]["gpu"] is record["machine"]["driver"] is record["machine"]["cudnn"] is None
    assert len(record["sides"]["project"]["row_seconds"]) == 1
    assert record["images_per_second"]["reference"] > 0
    assert record["evaluation"]["episodes"] == 4
    assert "peak memory" in capsys.readouterr().out


def test_table_shows_medians_and_ratio(capsys) -> None:
    record = {"workload": vars(Workload()), "machine": {"load_before": 0.0, "gpu": "a GPU"}}
    compared = measure.compared(sides(project=[result([1.0], 2**30)], reference=[result([2.5], 2**31)]))
    report.show({**record, **compared}, "step", Console(width=100))
    shown = capsys.readouterr().out
    assert "2.50 × as fast" in shown
    assert "0.50 of it" in shown


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


# ---------------------------------------------------------------------------- precisions, batches, throughput


def test_every_precision_of_the_device_is_measured_unless_one_is_chosen(tmp_path: Path, monkeypatch) -> None:
    def precisions(command: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["step", *command.split()])
        return [asked.precision for asked in workloads(step.arguments())]

    assert precisions("") == ["fp32"]
    assert precisions("--device cuda") == ["fp32", "tf32", "bf16", "fp16"]
    assert precisions("--device cuda --precision bf16 fp32") == ["bf16", "fp32"]
    with pytest.raises(UserError, match="--precision tf32"):
        precisions("--precision tf32")


def test_a_precision_that_fails_does_not_keep_the_others_from_being_measured(
    tmp_path, monkeypatch, capsys
) -> None:
    def measured(asked: Workload, options: Any, console: Console) -> dict[str, Any]:
        if asked.precision == "bf16":
            raise UserError("no such luck")
        return {"precision": asked.precision}

    monkeypatch.setattr("sys.argv", f"step --device cuda --batch largest --out {tmp_path}".split())
    assert report.run("step", step.arguments(), measured, lambda record, console: None) == 2
    assert "bf16: no such luck" in capsys.readouterr().err
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [f"step-vgg16-200-blargest-s1-cuda-{p}.json" for p in ("fp16", "fp32", "tf32")]


@pytest.mark.parametrize("memory_for", [0, 1, 2, 3, 7, 8, 13, 64, 100, 1000])
def test_the_largest_batch_is_found_to_an_eighth(memory_for: int) -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= memory_for

    found = step.largest(fits, limit=100)
    assert min(memory_for, 100) * 7 / 8 - 1 < found <= min(memory_for, 100)
    assert len(asked) == len(set(asked)) < 14


def test_running_out_of_memory_is_an_answer(monkeypatch) -> None:
    def run(side: str, job: str, asked: Workload, **options: Any) -> dict[str, Any]:
        if asked.batch > 3:
            raise measure.OutOfMemory("too much")
        return {}

    monkeypatch.setattr(measure, "run", run)
    tried = {"1": "fits", "2": "fits", "4": "out of memory", "3": "fits"}
    assert step.find_largest("project", Workload(), 8) == {"batch": 3, "limit": 8, "tried": tried}


def test_what_lacks_memory_is_told_from_what_fails() -> None:
    assert measure.lacked_memory(1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    assert measure.lacked_memory(1, "Unable to alloc cuda device memory for size 1024")
    assert measure.lacked_memory(-9, "")
    assert not measure.lacked_memory(1, "IndexError: list index out of range")


def test_images_per_second_come_from_steps_in_a_row() -> None:
    side = measure.side([{**result([2.0], 1), "row_seconds": [0.5]}])
    assert measure.throughput(side, images=4) == 8.0


# ------------------------------------------------------------------------------------------------- profiles


def event(kind: str, name: str, ts: float, dur: float, **others: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": kind, "name": name, "ts": ts, "dur": dur, "tid": 1, **others}


def test_a_trace_of_a_gpu_is_summed_a_step() -> None:
    events = [
        event("kernel", "gemm", 0, 40),
        event("kernel", "relu", 30, 20),  # beside the other: both together are busy for 50 µs
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 60, 10, args={"bytes": 2048}),
        event("cuda_runtime", "cudaLaunchKernel", 0, 5),
        event("cuda_driver", "cuLaunchKernelEx", 6, 5),
        event("cuda_runtime", "cudaMemcpyAsync", 12, 5),
        event("cuda_runtime", "cudaMemcpy", 20, 30),
        event("cuda_runtime", "cudaDeviceSynchronize", 60, 20),
        {"ph": "M", "name": "process_name"},
    ]
    found = profiler.of_trace(events, steps=2, on_gpu=True)
    assert found["kernels"] == 1
    assert found["kernel_seconds"] == pytest.approx(30e-6)
    assert found["busy_seconds"] == pytest.approx(30e-6)
    assert found["launches"]["count"] == 1
    assert found["synchronisations"] == {"count": 1, "seconds": pytest.approx(25e-6)}
    assert found["copies"]["host to device"] == {"count": 0.5, "seconds": pytest.approx(5e-6), "bytes": 1024}
    assert found["top"][0]["name"] == "gemm"


def test_on_a_cpu_operators_count_without_those_that_they_call() -> None:
    events = [
        event("cpu_op", "aten::conv2d", 0, 100),
        event("cpu_op", "aten::mkldnn_convolution", 10, 80),
        event("cpu_op", "aten::empty", 20, 10),
        event("cpu_op", "aten::relu", 100, 20),
    ]
    found = profiler.of_trace(events, steps=1, on_gpu=False)
    names = [kernel["name"] for kernel in found["top"]]
    assert names == ["aten::mkldnn_convolution", "aten::conv2d", "aten::relu", "aten::empty"]
    assert found["top"][0]["seconds"] == pytest.approx(70e-6)
    assert found["kernel_seconds"] == found["busy_seconds"] == pytest.approx(120e-6)
    assert found["operators"] == 4
    assert found["copies"] is found["synchronisations"] is None


def test_a_fused_kernel_is_named_by_what_was_fused() -> None:
    key = "«opkey0:broadcast_to«Tx:float32«DIM=3«BCAST=1«opkey1:binary«Tx:float32«OP:multiply«opkey2:reduce«OP:add«JIT:1"
    assert profile.brief(key) == "broadcast_to+multiply+add"
    assert profile.brief("mkl_conv«Txd:float32«JIT:1") == "mkl_conv"
    assert profile.brief("ampere_sgemm_128x64_nn") == "ampere_sgemm_128x64_nn"


@pytest.mark.parametrize(
    ("kernels", "busy", "copies", "by"),
    [(0.95, 0.95, 0.0, "kernels"), (0.3, 0.3, 0.0, "host"), (0.3, 0.95, 0.65, "copies")],
)
def test_what_bounds_a_step(kernels: float, busy: float, copies: float, by: str) -> None:
    times = {"wall_seconds": 1.0, "kernel_seconds": kernels, "busy_seconds": busy}
    found = profile.bound({**times, "copies": {"host to device": {"seconds": copies}}})
    assert found is not None
    assert found["by"] == by
    assert profile.bound(None) is None


def test_a_busy_gpu_is_a_mean_over_the_time_that_counts() -> None:
    samples = [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0), (3.0, 0.0)]
    assert memory.utilisation(samples, 0.5, 2.5) == 0.75
    assert memory.utilisation([], 0.0, 1.0) is None


def nvidia_smi(folder: Path, monkeypatch, *lines: str) -> None:
    """A driver's tool that answers with these lines."""
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_memory_and_use_of_a_gpu_are_watched(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "used").write_text("1000")
    nvidia_smi(tmp_path, monkeypatch, f'echo "$(cat {tmp_path / "used"}), 37"')
    with memory.watched_gpu(True) as gpu:
        (tmp_path / "used").write_text("3000")
        deadline = time.monotonic() + 10
        while not gpu.samples and time.monotonic() < deadline:
            time.sleep(0.02)
    assert gpu.bytes == 2000 * 2**20
    assert gpu.samples[0][1] == 0.37


def test_a_driver_that_does_not_answer_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo no devices were found", "exit 6")
    with memory.watched_gpu(True) as gpu:
        pass
    assert gpu.bytes is None
    assert gpu.samples == []


def test_facts_of_the_gpu_are_those_of_the_doctor(monkeypatch) -> None:
    driver, toolkit = Driver((13, 0), (Gpu("NVIDIA H100", 90, 80 * GIB),)), Toolkit(Path("nvcc"), (13, 0, 88))
    monkeypatch.setattr(measure.runtime, "probe_cuda", lambda: CudaReport(True, "", driver, toolkit))
    facts = measure.machine("cuda")
    assert (facts["gpu"], facts["toolkit"], facts["cudnn"]) == ("NVIDIA H100", "13.0.88", None)
    cpu = measure.machine("cpu")
    assert {cpu[name] for name in ("gpu", "driver", "toolkit", "cudnn")} == {None}


@needs_torch
@pytest.mark.slow
def test_a_step_of_both_sides_is_profiled(tmp_path: Path, monkeypatch) -> None:
    record = record_of(profile, "--steps 2 --warmup 2", tmp_path, monkeypatch)
    project, reference = record["sides"]["project"]["operators"], record["sides"]["reference"]["trace"]
    assert project["operators"] > 50
    assert reference["operators"] > 50
    assert all(side["kernel_seconds"] > 0 for side in (project, reference))
    assert project["copies"] is None  # nothing is copied on a CPU, and nothing is invented


def test_autocast_stands_beside_float32_where_a_cpu_offers_bfloat16(monkeypatch, capsys) -> None:
    monkeypatch.setenv("CPANET_BF16", "emulate")
    precisions = {name: w.precision for name, w in measure.sides_of(Workload(precision="bf16")).items()}
    assert precisions == {"project": "bf16", "reference": "fp32", measure.AUTOCAST: "bf16"}
    timed = {name: [result([seconds], 2**30)] for name, seconds in zip(precisions, (1.0, 4.0, 3.0))}
    record = measure.compared(sides(**timed))
    assert (record["speed_ratio"], record["autocast_speed_ratio"]) == (4.0, 3.0)
    Console(width=160).print(report.table(record))
    shown = capsys.readouterr().out
    median = next(line for line in shown.splitlines() if "median" in line)
    assert re.findall(r"[\d.]+ × as fast", median) == ["4.00 × as fast", "3.00 × as fast"]
    assert "PyTorch, bf16 autocast" in shown


def test_halves_without_defect_are_clean_and_those_with_a_little_are_left_out() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[:10, :10] = 1
    sample = supports.Sample(np.zeros((20, 40, 3), np.uint8), mask, 3)
    left, right = supports.halves([sample])
    assert (left.marked, right.marked) == (100, 0)
    assert left.image.shape == right.image.shape == (20, 20, 3)
    mask[0, 39] = 1
    assert [half.marked for half in supports.halves([sample])] == [100]


def test_what_supports_decide_is_told_in_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--backbone vgg16 --weights random --size 32 --classes patch --pictures 4 --shots 2 --draws 2"
    words = ["supports", "7", *supports.QUESTIONS, *small.split()]
    monkeypatch.setattr("sys.argv", words)
    supports.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    own, auto, *_, best = next(map(float, row[2:]) for row in rows if row[:2] == ["patch", "2"])
    assert 0 <= max(own, auto) <= best <= 1
    assert ["all", "2"] in [row[:2] for row in rows]
    assert sum(int(row[2]) for row in rows if row and row[0].startswith("of the")) == 4
