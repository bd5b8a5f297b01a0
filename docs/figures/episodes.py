"""Draw ``episodes.jpg``, the picture of the README: ``python docs/figures/episodes.py RUN_DIR [FILE]``.

From the small pictures that a finished run leaves in ``figures/episodes``: four episodes, one of each test class, each with
its support and mask, its query, and the prediction (red) on it with the truth (green).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np

from cpanet.overlay import overlay

SIDE, GAP, BAR, COLUMNS = 150, 6, 26, 2


def read(path: Path, mask: bool = False) -> np.ndarray:
    """A picture uint8 RGB or a mask bool, SIDE × SIDE."""
    found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if mask else cv2.IMREAD_COLOR)
    resized = cv2.resize(found, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST if mask else cv2.INTER_CUBIC)
    return resized > 127 if mask else cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)


def episode(folder: Path, number: int, words: str) -> np.ndarray:
    """Support, query and prediction side by side below a line of words."""
    part = {
        name: read(folder / f"{number:02d}_{name}.png", mask=name not in ("query", "support"))
        for name in ("support", "support_mask", "query", "truth", "prediction")
    }
    parts = [
        overlay(part["support"], outlined=part["support_mask"]),
        part["query"],
        overlay(part["query"], filled=part["prediction"], outlined=part["truth"]),
    ]
    gap = np.full((SIDE, 3, 3), 255, np.uint8)
    row = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
    union = np.count_nonzero(part["prediction"] | part["truth"])
    iou = np.count_nonzero(part["prediction"] & part["truth"]) / max(union, 1)
    line = np.full((BAR, row.shape[1], 3), 255, np.uint8)
    text = f"{words}: support | query | prediction, IoU {iou:.2f}"
    cv2.putText(line, text, (2, BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([line, row])


def draw(run: Path) -> np.ndarray:
    """The first episode of each class, in rows of COLUMNS: uint8 RGB."""
    folder = run / "figures" / "episodes"
    captions = [entry["caption"].split(":")[0] for entry in json.loads((folder / "index.json").read_text())]
    first = {name: number for number, name in reversed(list(enumerate(captions, 1)))}
    panels = [
        episode(folder, number, name) for name, number in sorted(first.items(), key=lambda item: item[1])
    ]
    gap = np.full((panels[0].shape[0], 3 * GAP, 3), 255, np.uint8)
    rows = [
        np.concatenate([panels[i], gap, panels[i + 1]], axis=1) for i in range(0, len(panels) - 1, COLUMNS)
    ]
    return np.concatenate(rows)


if __name__ == "__main__":
    target = Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).with_suffix(".jpg")
    picture = cv2.cvtColor(draw(Path(sys.argv[1])), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
