"""Sweeps and runs for tests: small enough to train for real, or without training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

TINY = (
    "profile=tiny",
    "data=embedded",
    "device=cpu",
    "backbone=vgg16",
    "backbone.weights=random",
    "data.workers=0",
    "log.overlays=0",
)


def pretend(checked: Any, run_dir: Path) -> float:
    """An experiment that only leaves the record of a completed run; its mIoU comes from configuration and seed."""
    miou = round(0.3 + 0.1 * checked.loss.k + 0.01 * checked.seed, 4)
    score = {"epoch": 1, "miou": miou, "fb_iou": 0.6, "class_iou": {"Steel_Am": miou}}
    result = {
        "status": "completed",
        "config": checked.model_dump(),
        "best": score,
        "last": score,
        "wall_seconds": 2.0,
    }
    (run_dir / "result.json").write_text(json.dumps(result))
    return miou


def results(sweep: Path) -> dict[str, dict[str, Any]]:
    """``result.json`` of every run of a sweep, by directory name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))}


def rows(table: Path) -> list[dict[str, str]]:
    """The rows of a ``.csv`` file."""
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def without_clock(result: dict[str, Any]) -> dict[str, Any]:
    """A record without what two equal runs may differ in."""
    return {k: v for k, v in result.items() if k not in ("wall_seconds", "peak_memory_mb", "git_commit")}


def only(folder: Path) -> Path:
    """The one directory in ``folder``."""
    (found,) = [path for path in folder.iterdir() if path.is_dir()]
    return found
