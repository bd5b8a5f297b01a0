"""Time of a training step by operator, as the frameworks' own profilers see it. Runs in the measured process.

Two tools. ``trace`` is PyTorch's profiler, which on CUDA is told by the driver (CUPTI) of every kernel and copy of the
process, whoever launched it: with PyTorch imported first it sees Jittor's as well. ``operators`` is Jittor's profiler: it
counts and times operators one by one and waits for the device after each, so its times include launches and no overlap.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

TRACE, OPERATORS = "trace", "operators"
TOP = 20  # kernels that are listed
WATCHED_SECONDS = 2.0  # of steps during which the driver is asked how busy the GPU is
LIBRARIES = ("mkl_", "cudnn_", "cublas_")  # Jittor's operators that are a library's
COPIES = {"HtoD": "host to device", "DtoH": "device to host", "DtoD": "device to device"}


def profile(take: Callable[[int], Any], device: str, warmup: int, steps: int, tool: str) -> dict[str, Any]:
    """Profile of ``steps`` steps of ``take``, a step on average; what a tool cannot tell is None.

    ``wall_seconds`` is measured without the profiler, before, and ``window`` is when steps were taken in a row for long
    enough for the driver's own account of how busy the GPU is.
    """
    take(max(warmup, 1))
    begin = time.perf_counter()
    take(steps)
    wall = (time.perf_counter() - begin) / steps
    window = None
    if device == "cuda":
        begun = time.time()
        take(max(1, round(WATCHED_SECONDS / wall)))
        window = [begun, time.time()]
    found = (traced if tool == TRACE else operators)(take, steps)
    result = {"tool": tool, "steps": steps, "wall_seconds": wall, **found}
    return result if window is None else {**result, "window": window}


# ------------------------------------------------------------------------------------- PyTorch's profiler


def traced(take: Callable[[int], Any], steps: int) -> dict[str, Any]:
    """By PyTorch's profiler."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        with torch.profiler.profile(activities=kinds) as recorded:
            take(steps)
        file = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text(errors="replace"))["traceEvents"]
    return of_trace(events, steps, on_gpu=len(kinds) > 1)


def of_trace(events: Iterable[Mapping[str, Any]], steps: int, on_gpu: bool) -> dict[str, Any]:
    """A Chrome trace, durations in µs, a step on average; on a CPU operators take the place of kernels."""
    by_kind: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X":
            by_kind[str(event.get("cat"))].append(event)
    calls = [*by_kind["cuda_runtime"], *by_kind["cuda_driver"]]
    copies = by_kind["gpu_memcpy"]
    kernels = by_kind["kernel"] if on_gpu else _own_times(by_kind["cpu_op"])
    busy = [*kernels, *copies, *by_kind["gpu_memset"]] if on_gpu else by_kind["cpu_op"]
    return {
        "kernel_seconds": _total(kernels, steps)["seconds"],
        "busy_seconds": _covered(busy) / steps,
        "kernels": len(kernels) / steps if on_gpu else None,
        "operators": None if on_gpu else len(kernels) / steps,
        "copies": {name: _copied(copies, mark, steps) for mark, name in COPIES.items()} if on_gpu else None,
        "synchronisations": _total([c for c in calls if _waits(c["name"])], steps) if on_gpu else None,
        "launches": _total([c for c in calls if "Launch" in c["name"]], steps) if on_gpu else None,
        "top": _top([(str(e["name"]), 1, float(e["dur"]) * 1e-6) for e in kernels], steps),
    }


def _total(events: Sequence[Mapping[str, Any]], steps: int) -> dict[str, float]:
    """Count and seconds of events, a step."""
    seconds = sum(float(event["dur"]) for event in events) * 1e-6
    return {"count": len(events) / steps, "seconds": seconds / steps}


def _copied(copies: Sequence[Mapping[str, Any]], mark: str, steps: int) -> dict[str, float]:
    """Count, seconds and bytes of the copies in one direction, a step."""
    those = [copy for copy in copies if mark in copy["name"]]
    size = sum(int(copy.get("args", {}).get("bytes", 0)) for copy in those)
    return {**_total(those, steps), "bytes": size / steps}


def _covered(events: Sequence[Mapping[str, Any]]) -> float:
    """Seconds in which at least one of the events was under way."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted((float(e["ts"]), float(e["ts"]) + float(e["dur"])) for e in events):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total * 1e-6


def _waits(name: str) -> bool:
    """Whether the host waits for the device in that call; a copy that is not asynchronous waits as well."""
    return "Synchronize" in name or name == "cudaMemcpy"


def _own_times(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Operators with the time that they took themselves, without those that they called in their thread."""
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        threads[event.get("tid")].append({**event, "end": float(event["ts"]) + float(event["dur"])})
    for those in threads.values():
        those.sort(key=lambda e: (float(e["ts"]), -e["end"]))
        callers: list[dict[str, Any]] = []
        for event in those:
            while callers and callers[-1]["end"] <= float(event["ts"]):
                callers.pop()
            if callers:
                callers[-1]["dur"] = float(callers[-1]["dur"]) - (event["end"] - float(event["ts"]))
            callers.append(event)
    return [event for those in threads.values() for event in those]


# --------------------------------------------------------------------------------------- Jittor's profiler


def operators(take: Callable[[int], Any], steps: int) -> dict[str, Any]:
    """By Jittor's profiler."""
    from cpanet.runtime import jt

    with jt.profile_scope() as report:
        take(steps)
    return of_report(report, steps)


def of_report(report: Sequence[Sequence[str]], steps: int) -> dict[str, Any]:
    """Jittor's report, its times in ns, a step on average.

    A product that Jittor finds to be a library's counts twice, as it was written and as what it became.
    """
    heading, *rows = report
    name, count, total = (heading.index(column) for column in ("Name", "Count", "TotalTime"))
    found = [(row[name], int(float(row[count])), float(row[total]) * 1e-9) for row in rows]
    seconds = sum(time for *_, time in found) / steps
    return {
        "kernel_seconds": seconds,
        "busy_seconds": seconds,
        "kernels": None,
        "operators": sum(number for _, number, _ in found) / steps,
        "library_calls": sum(number for name, number, _ in found if name.startswith(LIBRARIES)) / steps,
        "copies": None,
        "synchronisations": None,
        "launches": None,
        "top": _top(found, steps),
    }


def _top(found: Iterable[tuple[str, int, float]], steps: int) -> list[dict[str, Any]]:
    """The kernels that take longest, a step on average."""
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, count, seconds in found:
        total[name][0] += count
        total[name][1] += seconds
    longest = sorted(total.items(), key=lambda item: -item[1][1])[:TOP]
    return [{"name": n[:200], "count": c / steps, "seconds": s / steps} for n, (c, s) in longest]
