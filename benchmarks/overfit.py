"""Does it learn? A few fixed episodes, no augmentation, no dropout, until the network knows them by heart.

    python -m benchmarks.overfit data=metal8 data.root=DIR backbone=vgg16 backbone.weights=FILE data.image_size=200

Takes the overrides of ``run.py``; ``--episodes`` of the test fold are learnt with AdamW from a Kaiming-normal head.
One episode alone can be learnt by position; several, with defects in different places, cannot.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.configured import composed, episodes_and_network, recorded
from benchmarks.workload import run_parser
from cpanet import config, data, runtime

PLAIN = ("recipe.dropout=false", "recipe.init.head=kaiming_normal")


def arguments() -> argparse.Namespace:
    options = run_parser("overfit", __doc__)
    options.add_argument("--episodes", type=int, default=1, help="how many to learn at once")
    options.add_argument("--iterations", type=int, default=100, help="at most")
    options.add_argument("--target", type=float, default=0.9, help="foreground IoU to stop at")
    options.add_argument("--every", type=int, default=10, help="iterations between evaluations")
    options.add_argument("--lr", type=float, default=3e-4, help="of AdamW")
    return options.parse_args()


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record."""
    settings = composed([*PLAIN, *options.overrides])
    runtime.prepare(settings.device)
    record = {**measure.header("overfit", settings.device), "config": recorded(settings)}
    return {**record, "rows": learn(settings, options, console)}


def learn(settings: config.Config, options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Rows (iteration, loss, foreground IoU over the episodes, seconds)."""
    from cpanet import engine
    from cpanet.runtime import jt

    def spread(drawn: list[data.Episode]) -> list[data.Episode]:
        return [drawn[i] for i in np.linspace(0, len(drawn) - 1, options.episodes).astype(int)]

    batch, model = episodes_and_network(settings, spread)
    optimizer = jt.optim.AdamW(model.parameter_groups(options.lr, 1.0), options.lr)
    objective = engine.Objective(k=settings.loss.k)
    rows: list[dict[str, Any]] = []
    loss: float | None = None
    started = time.perf_counter()
    for iteration in range(options.iterations + 1):
        if iteration % options.every == 0:
            iou = foreground_iou(model, batch)
            seconds = time.perf_counter() - started
            rows.append({"iteration": iteration, "loss": loss, "iou": iou, "seconds": seconds})
            shown = "" if loss is None else f", loss {loss:.4f}"
            console.print(f"iteration {iteration:4d}: IoU {iou:.3f}{shown}")
            if iou >= options.target:
                break
            model.train()
        total = engine.train_step(model, optimizer, batch, objective).total
        loss = float(total.item())
    return rows


def foreground_iou(model: Any, batch: data.Batch) -> float:
    """Intersection over union of the foreground over the batch's queries, on the canvas, padding left out."""
    from cpanet.metrics import count
    from cpanet.runtime import jt

    model.eval()
    with jt.no_grad():
        logits = model(jt.array(batch.query), jt.array(batch.support), jt.array(batch.support_mask)).numpy()
    counts = [count(d > 0, label) for d, label in zip(logits[:, 1] - logits[:, 0], batch.query_mask)]
    return sum(c.inter_fg for c in counts) / max(sum(c.union_fg for c in counts), 1)


def shown(options: argparse.Namespace, record: dict[str, Any], console: Console) -> bool:
    """A row an evaluation; whether the target was reached."""
    table = Table("iteration", "loss", "IoU", "seconds", title=f"{options.episodes} episode(s) by heart")
    for row in record["rows"]:
        loss = "" if row["loss"] is None else f"{row['loss']:.4f}"
        table.add_row(str(row["iteration"]), loss, f"{row['iou']:.3f}", f"{row['seconds']:.0f}")
    console.print(table)
    return bool(record["rows"][-1]["iou"] >= options.target)


if __name__ == "__main__":
    asked = arguments()
    sys.exit(report.run("overfit", asked, measured, partial(shown, asked)))
