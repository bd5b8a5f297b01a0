"""Episodes side by side: what every row of the table predicts for the same query.

Reads the small pictures that runs leave in ``figures/episodes``. Each is decoded and drawn anew, so that what enters
the page is a picture whatever the file held.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cpanet import metrics
from cpanet.overlay import outline, tint
from cpanet.report.runs import Run

MOST_EPISODES = 12
MOST_PIXELS = 1024 * 1024
HIT, FALSE, MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)  # Okabe and Ito: apart for every kind of eye
OUTLINE = (255, 255, 255)
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # all that Pillow raises


class InlinePicture(NamedTuple):
    """A ``data:`` address and the size in pixels."""

    source: str
    width: int
    height: int
    words: str


class EpisodeRow(NamedTuple):
    """One episode: query, support with its mask, the truth, and a prediction (or None) a row of the table."""

    caption: str
    query: InlinePicture
    support: InlinePicture
    truth: InlinePicture
    predictions: list[InlinePicture | None]


class Gallery(NamedTuple):
    """Episodes that several rows met; ``rows`` are their positions in the page's list of rows."""

    rows: list[int]
    seeds: list[int | None]
    episodes: list[EpisodeRow]


class _Shown(NamedTuple):
    folder: Path
    episodes: tuple[tuple[str, str, str], ...]  # (caption, query, support) of each episode


def galleries(runs: Mapping[int, Run]) -> list[Gallery]:
    """One gallery a set of episodes; ``runs``: row number → the run that stands for the row."""
    groups: dict[tuple, list[tuple[int, Run, _Shown]]] = {}
    for row, run in runs.items():
        shown = _shown(run.duplicate_of or run.directory)
        if shown is not None:
            groups.setdefault(shown.episodes, []).append((row, run, shown))
    found = [_gallery(members) for members in groups.values()]
    return [gallery for gallery in found if gallery.episodes]


def _gallery(members: Sequence[tuple[int, Run, _Shown]]) -> Gallery:
    episodes = []
    for number, (caption, _, _) in enumerate(members[0][2].episodes[:MOST_EPISODES], 1):
        try:
            truth = _mask(members[0][2].folder / f"{number:02d}_truth.png")
            query = _photograph(members[0][2].folder / f"{number:02d}_query.png", truth.shape)
            support_mask = _mask(members[0][2].folder / f"{number:02d}_support_mask.png")
            support = _photograph(members[0][2].folder / f"{number:02d}_support.png", support_mask.shape)
        except UNREADABLE:
            continue
        predictions = [_prediction(shown.folder, number, query, truth) for _, _, shown in members]
        episodes.append(
            EpisodeRow(
                caption,
                _picture(query, f"{caption}, query"),
                _picture(_outlined(support, support_mask), f"support for {caption}"),
                _picture(_outlined(query, truth), f"{caption}, truth"),
                predictions,
            )
        )
    return Gallery([row for row, _, _ in members], [run.seed for _, run, _ in members], episodes)


def _prediction(folder: Path, number: int, query: np.ndarray, truth: np.ndarray) -> InlinePicture | None:
    try:
        predicted = _mask(folder / f"{number:02d}_prediction.png")
    except UNREADABLE:
        return None
    if predicted.shape != truth.shape:
        return None
    counts = metrics.count(predicted, truth.astype(np.uint8))
    return _picture(_compared(query, truth, predicted), f"prediction, IoU {100 * counts.iou_fg:.0f} %")


def _shown(directory: Path) -> _Shown | None:
    """The episodes that a run left pictures of, None where there are none or the index is damaged."""
    folder = directory / "figures" / "episodes"
    try:
        entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        index = tuple((str(e["caption"]), str(e["query"]), str(e["support"])) for e in entries)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _Shown(folder, index)


def _open(path: Path) -> Image.Image:
    image = Image.open(path, formats=["PNG"])
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{path.name}: {image.width}×{image.height} is no small picture")
    return image


def _mask(path: Path) -> np.ndarray:
    with _open(path) as image:
        return np.asarray(image.convert("L")) > 127


def _photograph(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    with _open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    if picture.shape[:2] != shape:
        raise ValueError(f"{path.name}: not as large as its mask")
    return picture


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``picture`` with ``mask`` tinted and its border drawn."""
    return outline(tint(picture, mask, HIT, 0.3), mask, OUTLINE)


def _compared(picture: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """``picture`` with hits, false alarms and misses in their colours, and the border of the truth."""
    drawn = tint(picture, truth & predicted, HIT, 0.6)
    drawn = tint(drawn, predicted & ~truth, FALSE, 0.65)
    return outline(tint(drawn, truth & ~predicted, MISSED, 0.6), truth, OUTLINE)


def _picture(pixels: np.ndarray, words: str) -> InlinePicture:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=82, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return InlinePicture(source, pixels.shape[1], pixels.shape[0], words)
