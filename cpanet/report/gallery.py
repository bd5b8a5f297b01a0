"""Episodes side by side: what every row of the table predicts for the same query.

Reads the small pictures that runs leave in ``figures/episodes``. Each is decoded and drawn anew, so that what enters
the page is a picture whatever the file held.
"""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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


class EpisodeRow(NamedTuple):
    """One episode: query, support with its mask, the truth, and a prediction with its IoU (or None) a row of the table."""

    caption: str
    query: InlinePicture
    support: InlinePicture
    truth: InlinePicture
    predictions: list[tuple[InlinePicture, str] | None]


class Gallery(NamedTuple):
    """Episodes that several rows met; ``rows`` are their positions in the page's list of rows."""

    rows: list[int]
    seeds: list[int | None]
    episodes: list[EpisodeRow]


def galleries(runs: Mapping[int, Run]) -> list[Gallery]:
    """One gallery a set of episodes; ``runs``: row number → the run that stands for the row."""
    groups: dict[tuple, dict[int, Path]] = defaultdict(dict)
    for row, run in runs.items():
        folder = (run.duplicate_of or run.directory) / "figures" / "episodes"
        # no pictures, a damaged index
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            shown = tuple((str(e["caption"]), str(e["query"]), str(e["support"])) for e in entries)
            groups[shown][row] = folder
    found = []
    for shown, folders in groups.items():
        captions = [caption for caption, _, _ in shown[:MOST_EPISODES]]
        if episodes := list(_episodes(captions, list(folders.values()))):
            found.append(Gallery(list(folders), [runs[row].seed for row in folders], episodes))
    return found


def _episodes(captions: Sequence[str], folders: Sequence[Path]) -> Iterator[EpisodeRow]:
    """Those whose pictures in the first of ``folders`` can be read; predictions of all."""
    for number, caption in enumerate(captions, 1):
        try:
            truth = _mask(folders[0] / f"{number:02d}_truth.png")
            query = _photograph(folders[0] / f"{number:02d}_query.png", truth.shape)
            support_mask = _mask(folders[0] / f"{number:02d}_support_mask.png")
            support = _photograph(folders[0] / f"{number:02d}_support.png", support_mask.shape)
        except UNREADABLE:
            continue
        yield EpisodeRow(
            caption,
            _picture(query),
            _picture(_outlined(support, support_mask)),
            _picture(_outlined(query, truth)),
            [_prediction(folder / f"{number:02d}_prediction.png", query, truth) for folder in folders],
        )


def _prediction(path: Path, query: np.ndarray, truth: np.ndarray) -> tuple[InlinePicture, str] | None:
    try:
        predicted = _mask(path)
    except UNREADABLE:
        return None
    if predicted.shape != truth.shape:
        return None
    iou = metrics.count(predicted, truth.astype(np.uint8)).iou_fg
    return _picture(_compared(query, truth, predicted)), f"{100 * iou:.0f} %"


def _pixels(path: Path, mode: str) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{path.name}: {image.width}×{image.height} is no small picture")
        return np.asarray(image.convert(mode))


def _mask(path: Path) -> np.ndarray:
    return _pixels(path, "L") > 127


def _photograph(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    picture = _pixels(path, "RGB")
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


def _picture(pixels: np.ndarray) -> InlinePicture:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=82, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return InlinePicture(source, pixels.shape[1], pixels.shape[0])
