"""Cost of looking at every gradient for numbers that are not finite: training steps with and without, in turns.

    python -m benchmarks.watched profile=paper backbone=vgg16 backbone.weights=random data=embedded

Takes the overrides of ``run.py``. Times are the processor's, of all threads together: those hardly depend on what else runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any
from unittest import mock

from rich.console import Console

from benchmarks import measure, report
from benchmarks.configured import composed, episodes_and_network, recorded
from benchmarks.overfit import PLAIN
from benchmarks.workload import run_parser
from cpanet import config, runtime


def arguments() -> argparse.Namespace:
    options = run_parser("watched", __doc__)
    options.add_argument("--steps", type=int, default=10, help="of either kind, after two of each")
    return options.parse_args()


def compared(settings: config.Config, steps: int) -> dict[str, list[float]]:
    """Seconds of the processor, a step, with the watch and without."""
    from cpanet import engine
    from cpanet.runtime import jt

    batch, model = episodes_and_network(settings, lambda drawn: drawn[: settings.train.batch_size])
    optimizer = jt.optim.AdamW(model.parameter_groups(1e-4, 1.0), 1e-4)
    objective = engine.Objective(k=settings.loss.k)
    model.train()

    def step() -> float:
        start = time.process_time()
        losses = engine.train_step(model, optimizer, batch, objective)
        jt.sync_all()
        for value in (losses.total, losses.gradients):
            value.item()
        return time.process_time() - start

    seconds: dict[str, list[float]] = {"watched": [], "not watched": []}
    unwatched: Any = lambda optimizer: jt.zeros((1,))  # noqa: E731
    for number in range(steps + 2):
        watched = step()
        with mock.patch.object(engine, "gradient_sum", unwatched):
            alone = step()
        if number >= 2:
            seconds["watched"].append(watched)
            seconds["not watched"].append(alone)
    return seconds


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record."""
    settings = composed([*PLAIN, *options.overrides])
    runtime.prepare(settings.device)
    seconds = compared(settings, options.steps)
    header = measure.header("watched", settings.device)
    return {**header, "config": recorded(settings), "seconds": seconds}


def shown(record: dict[str, Any], console: Console) -> None:
    """Medians of both kinds, and of the difference in pairs."""
    seconds = record["seconds"]
    for name, values in seconds.items():
        median = f"{statistics.median(values):.4f} s"
        console.print(f"{name}: {median} of the processor a step, median of {len(values)}")
    pairs = [1000 * (w - a) for w, a in zip(seconds["watched"], seconds["not watched"])]
    spread = f"pairs from {min(pairs):.0f} to {max(pairs):.0f} ms"
    console.print(f"difference: {statistics.median(pairs):.1f} ms, {spread}")


if __name__ == "__main__":
    sys.exit(report.run("watched", arguments(), measured, shown))
