"""Draw the picture of docs/predict.md: ``python docs/figures/predict.py ANNOTATED RUN_DIRECTORY [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from cpanet.overlay import TRUTH, outline

GAP, COLUMNS = 6, 6


def annotated(folder: Path) -> list[np.ndarray]:
    """The supports with their masks outlined."""
    pictures = []
    for path in sorted(folder.glob("*_mask.png")):
        image = cv2.imread(str(folder / path.name.replace("_mask", "")))
        pictures.append(outline(image, cv2.imread(str(path), 0) > 0, TRUTH[::-1]))
    return pictures


def row(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of equal size side by side, white where there are fewer than COLUMNS."""
    height, width = pictures[0].shape[:2]
    canvas = np.full((height, COLUMNS * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (width + GAP)
        canvas[:, left : left + width] = picture
    return canvas


def main(folder: Path, run: Path, target: Path) -> None:
    """Supports in the first row, two rows of results spread over the run's below it."""
    # the first ones are the supports themselves
    overlays = sorted((run / "overlays").rglob("*.png"), key=lambda p: (len(p.name), p.name))[3:]
    chosen = [overlays[i] for i in np.linspace(0, len(overlays) - 1, 2 * COLUMNS).astype(int)]
    results = [cv2.imread(str(path)) for path in chosen]
    supports = row(annotated(folder))
    gap = np.full((GAP, supports.shape[1], 3), 255, np.uint8)
    picture = np.concatenate([supports, gap, row(results[:COLUMNS]), gap, row(results[COLUMNS:])])
    small = cv2.resize(picture, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(*arguments[:2], arguments[2] if len(arguments) > 2 else Path(__file__).with_name("predict.jpg"))
