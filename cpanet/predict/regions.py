"""Connected regions of a mask: boxes, areas, and outlines as polygons that fill to exactly the region."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

import cv2
import numpy as np

Point = tuple[int, int]  # x, y of a pixel's corner


class Region(NamedTuple):
    """One connected region (8 neighbours).

    ``box``: left, top, width, height in pixels; ``area``: pixels; ``confidence``: mean probability over them;
    ``inside``: bool (height, width), the region within its box.
    """

    box: tuple[int, int, int, int]
    area: int
    confidence: float
    inside: np.ndarray


def find_regions(mask: np.ndarray, probability: np.ndarray, min_area: int = 1) -> list[Region]:
    """The regions of ``mask``, bool (H, W), that have at least ``min_area`` pixels, from top to bottom."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    regions = []
    for label in range(1, count):
        left, top, width, height, area = (int(n) for n in stats[label])
        if area < min_area:
            continue
        window = np.s_[top : top + height, left : left + width]
        inside = labels[window] == label
        confidence = float(probability[window][inside].mean(dtype=np.float64))
        regions.append(Region((left, top, width, height), area, confidence, inside))
    return regions


def without_small(mask: np.ndarray, regions: list[Region]) -> np.ndarray:
    """``mask`` with nothing but ``regions``."""
    kept = np.zeros_like(mask)
    for region in regions:
        left, top, width, height = region.box
        kept[top : top + height, left : left + width] |= region.inside
    return kept


def polygon(region: Region) -> list[int]:
    """The outline along the edges of its pixels, ``[x, y, x, y, …]``, in pixels of the picture.

    Holes are joined to the outline by cuts without width, so that one polygon says everything: filled, it gives back the
    region pixel by pixel.
    """
    outline = _joined(_loops(region.inside))
    left, top = region.box[:2]
    return [n for x, y in _corners(outline) for n in (left + x, top + y)]


def _loops(inside: np.ndarray) -> list[list[Point]]:
    """Closed paths along pixel edges with the region to the right: its outline, then its holes from left to right."""
    padded = np.pad(inside, 1)
    core, following = padded[1:-1, 1:-1], defaultdict[Point, list[Point]](list)
    # where the neighbour is missing: above, right, below, left; an edge goes clockwise from corner to corner
    for neighbour, (dx0, dy0), (dx1, dy1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(core & ~neighbour)
        for y, x in zip(rows.tolist(), columns.tolist()):
            following[x + dx0, y + dy0].append((x + dx1, y + dy1))
    # leftmost first: the outline before its holes
    return [_follow(start, following) for start in sorted(following) if start in following]


def _follow(start: Point, following: dict[Point, list[Point]]) -> list[Point]:
    """The loop through ``start``, taken out of ``following``."""
    loop, here, before = [start], start, None
    while True:
        options = following[here]
        # where two pixels touch by a corner, turn left, on to the other pixel: regions join across corners
        there = options[0] if len(options) == 1 or before is None else _leftmost(before, here, options)
        options.remove(there)
        if not options:
            del following[here]
        if there == start and start not in following:
            return loop
        loop.append(there)
        before, here = here, there


def _leftmost(before: Point, here: Point, options: list[Point]) -> Point:
    dx, dy = here[0] - before[0], here[1] - before[1]
    left = (here[0] + dy, here[1] - dx)  # y points down
    return left if left in options else options[0]


def _joined(loops: list[list[Point]]) -> list[Point]:
    """The outline with every hole spliced in at the nearest point to the left of the hole's leftmost corner."""
    points = [point for loop in loops for point in loop]
    after = list(range(1, len(points) + 1))  # of each point, which one follows
    rows = defaultdict[int, list[tuple[int, int]]](list)
    for index, (x, y) in enumerate(points):
        rows[y].append((x, index))
    for row in rows.values():
        row.sort()
    first = len(loops[0])
    after[first - 1] = 0
    for hole in loops[1:]:
        x, y = hole[0]
        at = rows[y][bisect_left(rows[y], (x, -1)) - 1][1]  # of a loop further left, so joined already
        again = len(points)  # the hole's first corner, and then the outline's: the way back
        points += [hole[0], points[at]]
        after += [again + 1, after[at]]
        after[at], after[first + len(hole) - 1] = first, again
        first += len(hole)
    path, index = [], 0
    while True:
        path.append(points[index])
        index = after[index]
        if index == 0:
            return path


def _corners(path: list[Point]) -> list[Point]:
    """``path`` without points in the middle of a straight line."""
    kept = []
    for before, here, after in zip([path[-1], *path[:-1]], path, [*path[1:], path[0]]):
        if (here[0] - before[0]) * (after[1] - here[1]) != (here[1] - before[1]) * (after[0] - here[0]):
            kept.append(here)
        elif (here[0] - before[0]) * (after[0] - here[0]) + (here[1] - before[1]) * (after[1] - here[1]) < 0:
            kept.append(here)  # the end of a cut, where the path turns back
    return kept
