"""Sweep directories as runs would leave them, drawn from a seeded generator: no training, no Jittor."""

from __future__ import annotations

import copy
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from cpanet import options
from cpanet.metrics import Counts, summarise
from tests.hydra_app import compose

CLASSES = ("Steel_Am", "Steel_Ia", "Steel_Ld", "Steel_Op")
PER_CLASS = 12
FLOOR = 0.3  # foreground IoU of the training-free comparison


ablation = functools.partial(options.read, "ablation")


@functools.cache
def _base() -> dict[str, Any]:
    return compose("profile=tiny", "data=embedded").model_dump()


def resolved(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with dotted keys changed: ``resolved(**{"loss.k": 0.2})``."""
    values = copy.deepcopy(_base())
    for key, value in changes.items():
        *sections, last = key.split(".")
        functools.reduce(dict.__getitem__, sections, values)[last] = value
    return values


def episodes_of(level: float, seed: int, classes: Sequence[str], noise: float = 0.02) -> list[dict[str, Any]]:
    """Counts of test episodes whose foreground IoU lies around ``level``, moved by training noise of ``seed``.

    What makes a class or an episode hard is the same for every run; ``noise`` is the standard deviation over seeds.
    """
    hardness = np.random.default_rng(1)
    luck = np.random.default_rng([seed, zlib.crc32(repr(level).encode())])
    shift = noise * luck.standard_normal()
    rows = []
    for name in classes:
        of_class = 0.08 * hardness.standard_normal()
        for i in range(PER_CLASS):
            defect = int(hardness.integers(800, 6000))
            of_episode = 0.15 * hardness.standard_normal()
            iou = np.clip(level + shift + of_class + of_episode + 0.03 * luck.standard_normal(), 0.02, 0.98)
            inter = round(defect * 2 * iou / (1 + iou))
            wrong, background = 2 * (defect - inter), 40_000 - defect
            counts = Counts(inter, inter + wrong, background - wrong // 2, background + wrong // 2)
            query, support = (f"{name}/Images/{name}_{n % PER_CLASS}.jpg" for n in (i, i + 1))
            rows.append({"class": name, "query": query, "supports": support, **counts._asdict()})
    return rows


def scores_of(epoch: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry of ``result.json``."""
    classes = sorted({row["class"] for row in rows})
    counts = [Counts(*(row[name] for name in Counts._fields)) for row in rows]
    found = summarise(counts, [classes.index(row["class"]) for row in rows])
    class_iou = {classes[c]: iou for c, iou in found.class_iou.items()}
    return {"epoch": epoch, "miou": found.miou, "fb_iou": found.fb_iou, "class_iou": class_iou}


def write_run(
    directory: Path,
    level: float,
    changes: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    pictures: bool = False,
    floor: float | None = FLOOR,
    **record: Any,
) -> Path:
    """A finished run around mIoU ``level``, with the configuration ``changes``; ``record`` replaces parts of its result.

    ``floor``: around what its training-free comparison lies; None: a run that has not evaluated it.
    """
    config = resolved(**dict(changes or {}))
    seed = config["seed"]
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (directory / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    classes = [f"{name}{config['fold'] or ''}" for name in CLASSES]
    evaluations = {
        "best": (16, episodes_of(level, seed, classes)),
        "last": (20, episodes_of(level - 0.02, seed, classes)),
    }
    if floor is not None:
        evaluations["floor"] = (0, episodes_of(floor, 0, classes, noise=0))
    result = {
        "status": "completed",
        **{which: scores_of(*evaluation) for which, evaluation in evaluations.items()},
        "untrained": scores_of(0, episodes_of(0.05, seed, classes)),
        "config": config,
        "dataset": {
            "name": config["data"]["name"],
            "fingerprint": "f" * 64,
            "test_episodes": len(classes) * PER_CLASS,
        },
        "backbone_weights": "vgg16_bn.pth",
        "device": "cpu",
        "versions": {"cpanet": "0.1.0", "python": "3.11.7", "jittor": "1.3.11.0"},
        "git_commit": "0123456789abcdef",
        "seed": seed,
        "wall_seconds": 61.5 + seed,
        "iterations": 200,
        "peak_memory_mb": 812.5,
        **record,
    }
    (directory / "result.json").write_text(json.dumps(result))
    lines = [{"which": w, "epoch": epoch, **row} for w, (epoch, rows) in evaluations.items() for row in rows]
    write_csv(directory / "episodes.csv", lines)
    write_csv(directory / "metrics.csv", _curve(level, seed))
    if pictures:
        _pictures(directory / "figures" / "episodes", level, seed, classes)
    return directory


def write_failure(directory: Path, changes: Mapping[str, Any], reason: str, status: str = "failed") -> Path:
    """Files of a job that failed."""
    directory.mkdir(parents=True)
    record = {"status": status, "reason": reason, "best": None, "last": None, "config": resolved(**changes)}
    (directory / "result.json").write_text(json.dumps(record))
    return directory


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``rows`` under their keys."""
    pd.DataFrame(rows, dtype=object).to_csv(path, index=False, lineterminator="\n")


def _curve(level: float, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([7, seed, int(1000 * level)])
    rows = []
    for epoch in range(0, 21, 2):
        rise = 1 / (1 + np.exp(-(epoch - 8) / 2))
        miou = max(0.0, 0.03 + (level - 0.03) * rise + 0.01 * rng.standard_normal())
        loss = "" if epoch == 0 else 0.75 - 0.5 * rise + 0.02 * rng.standard_normal()
        scores = {"miou": miou, "fb_iou": 0.45 + 0.4 * miou}
        rows.append({"epoch": epoch, "iteration": 10 * epoch, "loss_main": loss, "lr": 0.001, **scores})
    return rows


def _pictures(folder: Path, level: float, seed: int, classes: Sequence[str]) -> None:
    """Stand-ins for the episode pictures of a run: steel with a stain, and a mask that meets it the better the level."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng([9, seed, int(1000 * level)])
    index = []
    y, x = np.mgrid[:96, :96]
    for i, name in enumerate(classes):
        scene = np.random.default_rng(i)
        steel = 120 + 18 * scene.standard_normal((96, 96)) + 10 * np.sin(y / 5)
        cy, cx, r = scene.integers(30, 66), scene.integers(30, 66), scene.integers(10, 22)
        truth = (y - cy) ** 2 + (x - cx) ** 2 < r * r
        off = (1 - level) * 14 * draw.standard_normal(2)
        found = (y - cy - off[0]) ** 2 + (x - cx - off[1]) ** 2 < (r * (0.8 + 0.4 * draw.random())) ** 2
        picture = np.clip(np.where(truth, steel - 55, steel), 0, 255).astype(np.uint8)
        parts = {"query": picture, "truth": truth * 255, "prediction": found * 255}
        parts.update({"support": picture[::-1], "support_mask": truth[::-1] * 255})
        for part, array in parts.items():
            Image.fromarray(array.astype(np.uint8)).save(folder / f"{i + 1:02d}_{part}.png", optimize=True)
        names = [f"{name}/Images/{name}_{n}.jpg" for n in (0, 1)]
        index.append({"caption": f"{name}: {name}_0.jpg", "query": names[0], "support": names[1]})
    (folder / "index.json").write_text(json.dumps(index))
