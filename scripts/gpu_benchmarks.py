"""Speed and memory beside eager PyTorch in the same runs: training steps, evaluation, profiles, largest batches.

Most important first: the step at every precision with batch 2, then profiles, evaluations, and the largest batches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import SIDES, write_json
from cpanet.runtime.precision import offered
from scripts import stages

FOLDER = "benchmarks"
QUICK = ("--size", "32", "--width", "16", "--threads", "1")
FEWER = {  # repetitions of a rehearsal
    "step": "--rounds 1 --repeats 2 --warmup 1 --in-a-row 2",
    "profile": "--steps 2 --warmup 1",
    "evaluate": "--rounds 1 --repeats 1 --episodes 4",
    "largest": "--rounds 1 --repeats 1 --warmup 1 --limit 2",
}
PROFILED = ("tf32", "fp32")  # the precision that training takes, and the plain one
ORDER = ("fp32", "tf32", "bf16", "fp16")


def add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--backbone", default="vgg16", help="of the benchmarks")


def tasks(options: argparse.Namespace) -> list[stages.Task]:
    """Every measurement, a record each."""
    here = offered(options.device)
    ordered = [precision for precision in ORDER if precision in here]
    profiled = [precision for precision in PROFILED if precision in here]
    fewer = {kind: words.split() if options.quick else [] for kind, words in FEWER.items()}
    steps = ("--batch", "2", "--episodes", "0", "--anyway", *fewer["step"])
    largest = ("--batch", "largest", "--episodes", "0", *fewer["largest"])
    return [
        *(_task(options, "step", p, *steps) for p in ordered),
        *(_task(options, "profile", p, "--batch", "2", *fewer["profile"]) for p in profiled),
        *(_task(options, "evaluate", p, *fewer["evaluate"]) for p in ordered),
        *(_task(options, "step", p, *largest, name="largest", needs=240) for p in reversed(ordered)),
    ]


def _task(
    options: argparse.Namespace,
    module: str,
    precision: str,
    *arguments: str,
    name: str = "",
    needs: float = 60,
) -> stages.Task:
    name = f"{name or module}-{options.backbone}-{precision}"
    out = options.out / FOLDER / f"{name}.json"
    sizes = QUICK if options.quick else ()
    command = stages.python(
        f"benchmarks.{module}",
        *("--backbone", options.backbone, "--device", options.device, "--precision", precision),
        *(*sizes, *arguments, "--out", out),
    )
    return stages.Task(name, command, makes=out, needs=10 if options.quick else needs)


def summary(folder: Path) -> list[dict[str, Any]]:
    """A row a record: what was measured, seconds and images per second of both sides, and their ratio."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        record = stages.read_json(path)
        if not record or "images_per_second" not in record:
            continue
        images, sides, batch = record["images_per_second"], record["sides"], record["workload"]["batch"]
        times = {n: side.get("summary_row_seconds", side["summary_seconds"]) for n, side in sides.items()}
        if "largest" in record:
            batch = {name: found["batch"] for name, found in record["largest"].items()}
        rows.append(
            {
                "measurement": path.stem,
                "batch": batch,
                "precision": record["workload"]["precision"],
                "seconds": {name: summary["median"] for name, summary in times.items()},
                "images_per_second": images,
                "ratio": images["project"] / images["reference"],
                "gpu_bytes": {name: max(side["gpu_bytes"], default=None) for name, side in sides.items()},
                "agrees": record.get("agrees"),
            }
        )
    return rows


def conclude(options: argparse.Namespace, console: Console) -> bool:
    """``benchmarks.json`` and a table; False where there is nothing."""
    folder = options.out / FOLDER
    rows = summary(folder)
    profiles = {path.stem: stages.read_json(path) for path in sorted(folder.glob("profile-*.json"))}
    bound = {name: record["bound"] for name, record in profiles.items() if record}
    write_json(options.out / "benchmarks.json", {"rows": rows, "bound": bound})
    table = Table("measurement", "project", "reference", "images/s", "images/s", "ratio")
    for row in rows:
        seconds, images = row["seconds"], row["images_per_second"]
        table.add_row(
            row["measurement"],
            *(f"{1000 * seconds[side]:.2f} ms" for side in SIDES),
            *(f"{images[side]:.1f}" for side in SIDES),
            f"{row['ratio']:.2f}" + ("" if row["agrees"] is not False else " (differ)"),
        )
    console.print(table)
    return bool(rows)


STAGE = stages.Stage("benchmarks", __doc__ or "", add_options, tasks, conclude)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_benchmarks", __doc__ or "", [STAGE]))
