"""What it costs to look at every gradient for numbers that are not finite: training steps with and without, in turns.

    python -m benchmarks.watched profile=paper backbone=vgg16 backbone.weights=random data=embedded

Takes the overrides of ``run.py``. Times are the processor's, of all threads together: those hardly depend on what else runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import measure, overfit
from cpanet import config, data, runtime
from cpanet.errors import UserError


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="benchmarks.watched", description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=10, help="of either kind, after two of each")
    options.add_argument("--out", help="JSON file (default: benchmarks/results/)")
    options.add_argument("overrides", nargs="*", help="as for run.py")
    return options.parse_args()


def compared(settings: config.Config, steps: int) -> dict[str, list[float]]:
    """Seconds of the processor, a step, with the watch and without."""
    from cpanet import engine
    from cpanet.experiment import build_model
    from cpanet.runtime import jt

    section = settings.data
    root = Path(section.root) if section.root else None
    dataset = data.load_dataset(section.name, root, min_images=settings.shot + 1)
    drawn = data.test_episodes(dataset, settings.fold, settings.shot, settings.evaluate.episode_seed)
    batch = data.test_batch(dataset, drawn[: settings.train.batch_size], section.image_size)
    model, _ = build_model(settings)
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


def main() -> int:
    options = arguments()
    try:
        settings = overfit.compose_config(options.overrides)
        runtime.prepare(settings.device)
        seconds = compared(settings, options.steps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.4f} s of the processor a step, median of {options.steps}")
    pairs = [w - a for w, a in zip(seconds["watched"], seconds["not watched"])]
    difference = statistics.median(pairs)
    print(
        f"difference: {1000 * difference:.1f} ms, pairs from {1000 * min(pairs):.0f} to {1000 * max(pairs):.0f} ms"
    )
    record = {
        **measure.header("watched", settings.device),
        "config": settings.model_dump(),
        "seconds": seconds,
    }
    record["config"]["data"]["root"] = None
    print(f"written to {measure.write('watched', record, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
