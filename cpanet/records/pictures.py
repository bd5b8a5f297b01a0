"""Pictures of episodes and curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cpanet.files import replacing, write_atomically
from cpanet.metrics import count
from cpanet.overlay import overlay


class EpisodeFigure(NamedTuple):
    """One episode to show: images uint8 RGB (H, W, 3), masks bool (H, W), a caption; names say which episode it is."""

    support: np.ndarray
    support_mask: np.ndarray
    query: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    caption: str
    query_name: str = ""
    support_name: str = ""


def strip(figure: EpisodeFigure, height: int = 200) -> np.ndarray:
    """Support with its mask, query with the truth, query with truth and prediction, side by side: uint8 (height, W, 3)."""
    parts = [
        overlay(figure.support, outlined=figure.support_mask),
        overlay(figure.query, outlined=figure.truth),
        overlay(figure.query, filled=figure.prediction, outlined=figure.truth),
    ]
    scaled = [cv2.resize(p, (max(1, round(p.shape[1] * height / p.shape[0])), height)) for p in parts]
    gap = np.full((height, 4, 3), 255, np.uint8)
    return np.concatenate([scaled[0], gap, scaled[1], gap, scaled[2]], axis=1)


def captioned_strip(figure: EpisodeFigure) -> np.ndarray:
    """:func:`strip` below a line that says what its three pictures show, and the episode's IoU."""
    counts = count(figure.prediction, figure.truth.astype(np.uint8))
    words = f"support, mask green | query, truth green | prediction red, IoU {counts.iou_fg:.2f}"
    return _below_words(words, strip(figure))


def _below_words(words: str, picture: np.ndarray, bar: int = 24) -> np.ndarray:
    """``picture`` below a line of ``words`` on white, which is wide enough for both."""
    words = " ".join(words.encode("utf-8", "replace").decode().split())
    narrow = max(0, round(_letters().getlength(words)) + 8 - picture.shape[1])
    image = Image.fromarray(np.pad(picture, ((bar, 0), (0, narrow), (0, 0)), constant_values=255))
    ImageDraw.Draw(image).text((4, 4), words, (30, 30, 30), _letters())
    return np.asarray(image)


@cache
def _letters() -> Any:
    """matplotlib's own font, which is on every machine."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 13)


def save_grid(path: Path, figures: Sequence[EpisodeFigure]) -> None:
    """A picture with a row an episode: support, query and truth, prediction."""
    what = "(support | query, truth green | prediction red)"
    rows = [_below_words(f"{figure.caption}   {what}", strip(figure)) for figure in figures]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    write_atomically(path, cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes())


def save_episodes(folder: Path, figures: Sequence[EpisodeFigure], side: int = 128) -> None:
    """Small pictures by themselves, for reports that put runs side by side: ``01_query.png``, …, and ``index.json``.

    Photographs as they are, masks grey 0 or 255; ``side`` is the longer side. The index says which episodes they show
    and is written last, so that it never promises a picture that is not there.
    """
    folder.mkdir(exist_ok=True)
    for number, figure in enumerate(figures, 1):
        for name in ("query", "truth", "prediction", "support", "support_mask"):
            _save_small(folder / f"{number:02d}_{name}.png", getattr(figure, name), side)
    index = [{"caption": p.caption, "query": p.query_name, "support": p.support_name} for p in figures]
    write_atomically(folder / "index.json", json.dumps(index, indent=1, ensure_ascii=False).encode())


def _save_small(path: Path, picture: np.ndarray, side: int) -> None:
    height, width = picture.shape[:2]
    size = [max(1, round(edge * side / max(height, width))) for edge in (width, height)]
    if picture.dtype == bool:
        small = cv2.resize(picture.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    else:
        small = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    write_atomically(path, cv2.imencode(".png", small)[1].tobytes())


def save_curves(path: Path, steps: Sequence[Sequence[Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Training loss over iterations (smoothed over a twentieth of the run) and scores at the evaluated epochs.

    ``steps``: iteration, main loss, auxiliary loss or None, of each.
    """
    import pandas as pd
    from matplotlib.figure import Figure

    # the object interface alone: no global state, no display needed; margins by hand, to draw it once and not twice
    figure = Figure(figsize=(9.0, 3.2), dpi=120)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.16, top=0.97, wspace=0.18)
    axes = figure.subplots(1, 2)
    losses = (
        pd.DataFrame(steps, columns=["iteration", "main", "auxiliary"]).astype(float).set_index("iteration")
    )
    smooth = losses.rolling(max(1, len(losses) // 20), min_periods=1).mean()
    for label, values in smooth.dropna(axis=1, how="all").items():
        axes[0].plot(values.index, values, label=label)
    if steps:
        axes[0].legend()
    axes[0].set(xlabel="iteration", ylabel="loss")
    evaluated = [row for row in rows if row.get("miou") is not None]
    for key, label in (("miou", "mIoU"), ("fb_iou", "FB-IoU")):
        epochs, values = [row["epoch"] for row in evaluated], [row[key] for row in evaluated]
        axes[1].plot(epochs, values, marker="o", markersize=3, label=label)
    axes[1].set(xlabel="epoch", ylabel="IoU on unseen classes", ylim=(0, 1))
    axes[1].legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
