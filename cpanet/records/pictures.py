"""Pictures of episodes and curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cpanet.files import write_atomically
from cpanet.metrics import count

TRUTH = (64, 220, 90)
PREDICTION = (235, 60, 60)


class Panel(NamedTuple):
    """One episode to show: images uint8 RGB (H, W, 3), masks bool (H, W), a caption; names say which episode it is."""

    support: np.ndarray
    support_mask: np.ndarray
    query: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    caption: str
    query_name: str = ""
    support_name: str = ""


def overlay(
    image: np.ndarray, filled: np.ndarray | None = None, outlined: np.ndarray | None = None
) -> np.ndarray:
    """``image`` with one mask tinted red and another outlined in green."""
    picture = image.copy()
    if filled is not None and filled.any():
        picture[filled] = (0.5 * picture[filled] + 0.5 * np.array(PREDICTION)).astype(np.uint8)
    if outlined is not None:
        contours, _ = cv2.findContours(outlined.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, TRUTH, 1)
    return picture


def strip(panel: Panel, height: int = 200) -> np.ndarray:
    """Support with its mask, query with the truth, query with truth and prediction, side by side: uint8 (height, W, 3)."""
    parts = [
        overlay(panel.support, outlined=panel.support_mask),
        overlay(panel.query, outlined=panel.truth),
        overlay(panel.query, filled=panel.prediction, outlined=panel.truth),
    ]
    scaled = [cv2.resize(p, (max(1, round(p.shape[1] * height / p.shape[0])), height)) for p in parts]
    gap = np.full((height, 4, 3), 255, np.uint8)
    return np.concatenate([scaled[0], gap, scaled[1], gap, scaled[2]], axis=1)


def captioned_strip(panel: Panel, height: int = 200, bar: int = 24) -> np.ndarray:
    """:func:`strip` below a line that says what its three pictures show, and the episode's IoU."""
    counts = count(panel.prediction, panel.truth.astype(np.uint8))
    iou = counts.inter_fg / max(counts.union_fg, 1)
    words = f"support, mask green | query, truth green | prediction red, IoU {iou:.2f}"
    letters = (cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    picture = strip(panel, height)
    narrow = max(0, cv2.getTextSize(words, *letters)[0][0] + 8 - picture.shape[1])
    picture = np.pad(picture, ((bar, 0), (0, narrow), (0, 0)), constant_values=255)
    cv2.putText(picture, words, (4, bar - 8), letters[0], letters[1], (30, 30, 30), letters[2], cv2.LINE_AA)
    return picture


def save_grid(path: Path, panels: Sequence[Panel]) -> None:
    """A figure with a row an episode: support, query and truth, prediction."""
    figure, axes = _subplots(len(panels), 1, (7.2, 2.3 * len(panels)))
    for axis, panel in zip(axes, panels):
        axis.imshow(strip(panel))
        axis.set_title(
            f"{panel.caption}   (support | query, truth green | prediction red)", fontsize=7, parse_math=False
        )
        axis.axis("off")
    _save(figure, path)


def save_episodes(folder: Path, panels: Sequence[Panel], side: int = 128) -> None:
    """Small pictures by themselves, for reports that put runs side by side: ``01_query.png``, …, and ``index.json``.

    Photographs as they are, masks grey 0 or 255; ``side`` is the longer side. The index says which episodes they show
    and is written last, so that it never promises a picture that is not there.
    """
    folder.mkdir(exist_ok=True)
    for number, panel in enumerate(panels, 1):
        parts = {
            "query": panel.query,
            "truth": panel.truth,
            "prediction": panel.prediction,
            "support": panel.support,
            "support_mask": panel.support_mask,
        }
        for name, picture in parts.items():
            _save_small(folder / f"{number:02d}_{name}.png", picture, side)
    index = [{"caption": p.caption, "query": p.query_name, "support": p.support_name} for p in panels]
    write_atomically(folder / "index.json", json.dumps(index, indent=1, ensure_ascii=False).encode())


def _save_small(path: Path, picture: np.ndarray, side: int) -> None:
    height, width = picture.shape[:2]
    size = [max(1, round(edge * side / max(height, width))) for edge in (width, height)]
    if picture.dtype == bool:
        small = cv2.resize(picture.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    else:
        small = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    write_atomically(path, cv2.imencode(".png", small)[1].tobytes())


def save_curves(path: Path, steps: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Training loss over iterations (smoothed over a twentieth of the run) and scores at the evaluated epochs."""
    figure, axes = _subplots(1, 2, (9.0, 3.2))
    if steps:
        iterations = np.array([s.iteration for s in steps])
        for label, values in (
            ("main", [s.main for s in steps]),
            ("auxiliary", [np.nan if s.auxiliary is None else s.auxiliary for s in steps]),
        ):
            smooth = _smooth(np.array(values, dtype=float), max(1, len(values) // 20))
            if np.isfinite(smooth).any():
                axes[0].plot(iterations, smooth, label=label)
        axes[0].legend()
    axes[0].set(xlabel="iteration", ylabel="loss")
    evaluated = [row for row in rows if row.get("miou") is not None]
    for key, label in (("miou", "mIoU"), ("fb_iou", "FB-IoU")):
        axes[1].plot(
            [r["epoch"] for r in evaluated],
            [r[key] for r in evaluated],
            marker="o",
            markersize=3,
            label=label,
        )
    axes[1].set(xlabel="epoch", ylabel="IoU on unseen classes", ylim=(0, 1))
    axes[1].legend()
    _save(figure, path)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    if window <= 1:
        return values
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list]:
    # the object interface alone: no global state, no display needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
