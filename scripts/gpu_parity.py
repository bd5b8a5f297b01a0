"""Does a training step on this GPU come to what it comes to on the CPU? At fp32, TF32 off.

The released code's outputs on the device; then the same training steps on the device and on the CPU: losses, the
gradient of every parameter, the parameters after the step, and the losses of the following steps side by side.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.agreement import deviations
from benchmarks.measure import machine, write_json
from benchmarks.oracle import BEFORE_SOFTMAX, FIXTURES, gradient_limit
from cpanet import runtime
from scripts import stages

# Tolerances. Logits and the released training step: as in tests/test_fixtures.py. The CPU's own gradients (Winograd
# kernels, float32) are up to 8e-4 from float64; later steps start from what the earlier ones differ in.
LIMITS = {
    "fixture logits": 1e-4,
    "fixture training step": 1e-3,
    "fixture gradients before the softmax": gradient_limit(BEFORE_SOFTMAX[0]),
    "first losses": 1e-4,
    "gradients": 5e-3,
    "parameters": 1e-5,
    "later losses": 1e-2,
}
REAL = ("profile=paper", "data=metal8", "backbone=vgg16")
MADE = ("profile=paper", "data=embedded", "backbone=vgg16", "backbone.weights=random")
TINY = ("profile=tiny", "recipe=paper", "data=embedded", "backbone=vgg16", "backbone.weights=random")


def add_options(made: argparse.ArgumentParser) -> None:
    stages.data_options(made)
    made.add_argument("--steps", type=int, default=20, help="training steps to compare")


def overrides(options: argparse.Namespace) -> list[str]:
    """Real weights and pictures where both are given, else the embedded pictures and random features."""
    if options.quick:
        return list(TINY)
    if options.data_root and options.weights:
        real = [f"data.root={Path(options.data_root).resolve()}"]
        return [*REAL, *real, f"backbone.weights={Path(options.weights).resolve()}"]
    return list(MADE)


def tasks(options: argparse.Namespace) -> list[stages.Task]:
    """Fixtures on the device, then the steps on both."""
    folder = options.out / "parity"
    steps = {"job": "steps", "overrides": overrides(options), "steps": 3 if options.quick else options.steps}
    chosen = ["vgg16bn_1shot"] if options.quick else list(FIXTURES)
    made = [
        ("fixtures", {"job": "fixtures", "device": options.device, "fixtures": chosen}, "fixtures.json"),
        ("device", {**steps, "device": options.device}, "device.npz"),
        ("cpu", {**steps, "device": "cpu"}, "cpu.npz"),
    ]
    found = []
    for name, request, result in made:
        file = folder / f"{name}.request.json"
        if stages.read_json(file) != request:  # other work than a result that lies there would be of
            write_json(file, request)
            (folder / result).unlink(missing_ok=True)
        command = stages.python("scripts.parity_side", file, folder / result)
        found.append(stages.Task(f"parity-{name}", command, makes=folder / result))
    return found


def compare(cpu: dict[str, np.ndarray], device: dict[str, np.ndarray]) -> dict[str, Any]:
    """The device against the CPU: every difference relative, gradients and parameters as vectors."""
    keys = [key for key in cpu if key.startswith("gradient/")]
    gradients = {
        key.partition("/")[2]: {
            "norm_cpu": float(np.linalg.norm(cpu[key])),
            "norm_device": float(np.linalg.norm(device[key])),
            "deviation": deviation,
        }
        for key, deviation in deviations(device, cpu, keys).items()
    }
    parameters = {name: _moved(cpu[f"parameter/{name}"], device[f"parameter/{name}"]) for name in gradients}
    losses = np.abs(device["losses"] - cpu["losses"]) / np.maximum(np.abs(cpu["losses"]), 1e-12)
    losses[np.isnan(cpu["losses"]) & np.isnan(device["losses"])] = 0.0  # no auxiliary loss on either
    return {
        "gradients": gradients,
        "parameters": parameters,
        "losses": {side: found["losses"].tolist() for side, found in (("cpu", cpu), ("device", device))},
        "worst": {
            "first losses": float(losses[0].max()),
            "gradients": max(g["deviation"] for g in gradients.values()),
            "parameters": max(parameters.values()),
            "later losses": float(losses.max()),
        },
        "worst_gradient": max(gradients, key=lambda n: gradients[n]["deviation"]),
    }


def _moved(cpu: np.ndarray, device: np.ndarray) -> float:
    """Distance over the parameter's norm, or that of as many weights of 0.01: one that started at 0 holds a single step."""
    size = max(float(np.linalg.norm(cpu)), 0.01 * cpu.size**0.5)
    return float(np.linalg.norm(device.astype(np.float64) - cpu)) / size


def within_bounds(worst: dict[str, float]) -> dict[str, bool]:
    """Whether each difference is within its limit; not a number never is."""
    return {name: bool(value <= LIMITS[name]) for name, value in worst.items()}


def conclude(options: argparse.Namespace, console: Console) -> bool:
    """``parity.json`` and a line; False where something is missing or beyond its limit."""
    folder = options.out / "parity"
    worst: dict[str, float] = {}
    record: dict[str, Any] = {"machine": machine(options.device), "versions": runtime.versions()}
    record["limits"] = LIMITS
    fixtures = stages.read_json(folder / "fixtures.json")
    if fixtures:
        record["fixtures"] = fixtures
        worst["fixture logits"] = max(fixtures["logits"].values())
        worst["fixture training step"] = max(fixtures["training"].values())
        worst["fixture gradients before the softmax"] = max(fixtures["before_softmax"].values())
    sides = [_arrays(folder / f"{side}.npz") for side in ("cpu", "device")]
    if all(sides):
        found = compare(*sides)
        record.update(found)
        worst.update(found["worst"])
    within = within_bounds(worst)
    record.update(worst=worst, within=within, complete=worst.keys() == LIMITS.keys())
    record["passed"] = record["complete"] and all(within.values())
    write_json(options.out / "parity.json", record)
    if worst:
        console.print(_table(worst, within))
    console.print(_verdict(record, options.device))
    return bool(record["passed"])


def _arrays(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    with np.load(file) as stored:
        return dict(stored)


def _table(worst: dict[str, float], within: dict[str, bool]) -> Table:
    made = Table("largest relative difference", "found", "accepted", "")
    for name, value in worst.items():
        made.add_row(name, f"{value:.1e}", f"{LIMITS[name]:.0e}", "ok" if within[name] else "[red]beyond[/]")
    return made


def _verdict(record: dict[str, Any], device: str) -> str:
    if record["passed"]:
        return f"[green]{device} computes what the CPU computes.[/]"
    beyond = [name for name, good in record["within"].items() if not good]
    if beyond:
        return f"[red]{device} does not compute what the CPU computes: {', '.join(beyond)}. Do not train with it.[/]"
    return "The comparison is not complete: start the same command again."


STAGE = stages.Stage("parity", __doc__ or "", add_options, tasks, conclude, gate=True)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_parity", __doc__ or "", [STAGE]))
