"""Time an evaluation of test episodes: this project against the textbook network in PyTorch, in turns.

    python -m benchmarks.evaluate --backbone resnet50 --threads 2

Both meet the same episodes of the embedded data set, with the same weights, and count the same pixels. The
project computes the backbone's features of every test image once, in its first pass, and batches episodes
(``--batch``); the reference takes one episode at a time, each image through the backbone, as the released code.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import measure, report
from benchmarks.workload import Workload, parser
from cpanet.errors import UserError

BATCH = 8  # of the project's episodes
# Where a logit difference is near 0, rounding decides which side of it a pixel falls on.
PIXELS_THAT_MAY_DIFFER = 1e-3


def arguments() -> argparse.Namespace:
    options = parser("evaluate", __doc__, precisions=True)
    options.set_defaults(batch=BATCH)
    options.add_argument("--episodes", type=int, default=100, help="test episodes (100 is all of fold 0)")
    options.add_argument("--rounds", type=int, default=2, help="processes of either side")
    options.add_argument("--repeats", type=int, default=3, help="the project's passes after the first")
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: passes in turns, then whether both sides counted the same."""
    record = measure.header("evaluate", asked.device, asked)
    jobs = {
        name: partial(
            measure.run,
            name,
            "evaluation",
            workload,
            episodes=options.episodes,
            passes=options.repeats if name == "project" else 0,  # PyTorch's passes are all alike
        )
        for name, workload in measure.sides_of(asked).items()
    }
    limits = [measure.run("reference", "limits", asked)]
    results = measure.in_turns(jobs, options.rounds, console)
    limits.append(measure.run("reference", "limits", asked))
    record["episodes"] = len(results["project"][0]["counts"])
    record["scores"] = {name: found[0]["scores"] for name, found in results.items()}  # mIoU, FB-IoU
    record["differing_pixels"] = differing(*(results[name][0]["counts"] for name in measure.SIDES))
    if asked.precision == "fp32" and record["differing_pixels"] > PIXELS_THAT_MAY_DIFFER:
        raise UserError(
            f"The two sides do not predict the same: {record['differing_pixels']:.1%} of the pixels differ."
        )
    record["first_pass_seconds"] = {
        name: statistics.median(result["first_pass_seconds"] for result in found)
        for name, found in results.items()
    }
    record["textbook_flop"] = limits[0]["flop"]["evaluation"] * record["episodes"] / asked.batch
    record["machine_peak_flops"] = max(limit["peak_flops"] for limit in limits)
    images = record["episodes"] * (1 + asked.shot)
    sides = {name: measure.side(found) for name, found in results.items()}
    record["images_per_second"] = {name: measure.throughput(side, images) for name, side in sides.items()}
    return {**record, **measure.compared(sides)}


def differing(project: list[list[int]], reference: list[list[int]]) -> float:
    """At least this fraction of all labelled pixels was predicted differently."""
    ours, theirs = np.array(project), np.array(reference)
    labelled = (theirs[:, 0] + theirs[:, 3]).sum()  # hits of the foreground, and what the background adds
    return float(np.abs(ours[:, [0, 2]] - theirs[:, [0, 2]]).sum() / labelled)


def shown(record: dict[str, Any], console: Console) -> None:
    report.show(record, f"evaluation of {record['episodes']} episodes", console)


if __name__ == "__main__":
    sys.exit(report.run("evaluate", arguments(), measured, shown))
