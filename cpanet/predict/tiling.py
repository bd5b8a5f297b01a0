"""Large pictures as overlapping tiles, and their results blended together. NumPy alone."""

from __future__ import annotations

import math
from typing import NamedTuple, Union

import numpy as np

MUCH_LARGER = 2.0  # times the side of a tile, from which tiling=auto cuts a picture up
MOST_WINDOWS = 8  # of one support

Tiling = Union[bool, str]


class Tile(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """To index an array (H, W, …) with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def is_tiled(height: int, width: int, side: int, tiling: Tiling) -> bool:
    """Whether a picture is cut up: ``auto`` means much larger than a tile, True larger at all."""
    if tiling is False:
        return False
    return max(height, width) > side * (MUCH_LARGER if tiling == "auto" else 1)


def tiles(height: int, width: int, side: int, overlap: float) -> list[Tile]:
    """Tiles of at most ``side`` × ``side`` that cover a picture; neighbours share at least ``overlap`` of their side.

    All have the same size and are spread evenly, so that none is left with a thin rest.
    """
    tops, lefts = starts(height, side, overlap), starts(width, side, overlap)
    return [Tile(t, left, min(side, height), min(side, width)) for t in tops for left in lefts]


def starts(length: int, side: int, overlap: float) -> list[int]:
    """First pixels of the tiles along one axis."""
    if length <= side:
        return [0]
    step = max(1, math.floor(side * (1 - overlap)))
    count = 1 + math.ceil((length - side) / step)
    return [round(start) for start in np.linspace(0, length - side, count)]


def ramp(length: int, overlap: float) -> np.ndarray:
    """Weights along one axis of a tile: 1 in its middle, falling smoothly (sin²) towards both ends, above 0 everywhere."""
    border = max(1.0, length * max(overlap, 1e-9))
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.sin(np.minimum(distance / border, 1.0) * (np.pi / 2)).astype(np.float32) ** 2


class Blend:
    """Weighted mean of tiles: a seam is where one tile fades out and its neighbour in."""

    def __init__(self, height: int, width: int, overlap: float) -> None:
        self._sum = np.zeros((height, width), np.float32)
        self._weight = np.zeros((height, width), np.float32)
        self._overlap = overlap

    def add(self, tile: Tile, values: np.ndarray) -> None:
        """``values`` (tile.height, tile.width), float."""
        weight = np.outer(ramp(tile.height, self._overlap), ramp(tile.width, self._overlap))
        self._sum[tile.window] += weight * values
        self._weight[tile.window] += weight

    def mean(self) -> np.ndarray:
        """(height, width) float32."""
        return self._sum / np.maximum(self._weight, np.finfo(np.float32).tiny)


def support_windows(mask: np.ndarray, side: int) -> list[Tile]:
    """Windows of ``side`` pixels that show the defect of a large support at the scale of the tiles.

    Each is centred on what the ones before have left uncovered, largest piece first; a few of them at most. ``mask``
    is bool (H, W) with at least one True.
    """
    import cv2

    height, width = mask.shape
    rest = mask.astype(np.uint8)
    found: list[Tile] = []
    while len(found) < MOST_WINDOWS:
        _, _, stats, centres = cv2.connectedComponentsWithStats(rest, connectivity=8)
        if len(stats) < 2:
            break
        piece = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        x, y = centres[piece]
        window = Tile(_start(y, side, height), _start(x, side, width), min(side, height), min(side, width))
        covered = rest[window.window]
        if not covered.any():  # a ring, whose centre is no part of it
            rows, columns = np.nonzero(rest)
            window = window._replace(top=_start(rows[0], side, height), left=_start(columns[0], side, width))
        found.append(window)
        rest[window.window] = 0
    return found


def _start(centre: float, side: int, length: int) -> int:
    return int(min(max(0, round(centre - side / 2)), max(0, length - side)))
