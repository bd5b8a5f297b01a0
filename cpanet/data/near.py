"""Pictures that are the same but for their compression: found by coarse averages, confirmed pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 16  # of the coarse picture
COARSE = 3.0  # grey levels that no coarse pixel may differ by; compression keeps averages
CORRELATION = (
    0.7  # of the fine structure; 0 for two photographs of the same plate, above 0.8 for a JPEG of quality 50
)
FINE_SIGMA = 4.0  # pixels: illumination that all pictures share must not count


def near_pairs(images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Indices (first, second) of pictures of one size, uint8 RGB (H, W, 3), that show the same but are not equal.

    Each picture stands as ``second`` once at most. Turned, mirrored or scaled copies are not found.
    """
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    if not greys:
        return []
    coarse = np.stack(
        [cv2.resize(g.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for g in greys]
    )
    found = []
    for second in range(1, len(greys)):
        close = np.abs(coarse[:second] - coarse[second]).max(axis=1) <= COARSE
        for first in np.flatnonzero(close):
            if _same(images[first], images[second], greys[first], greys[second]):
                found.append((int(first), second))
                break
    return found


def _same(first: np.ndarray, second: np.ndarray, grey: np.ndarray, other: np.ndarray) -> bool:
    if first.shape != second.shape or np.array_equal(first, second):
        return False
    a, b = _fine(grey), _fine(other)
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return size > 0 and float((a * b).sum()) / size >= CORRELATION


def _fine(grey: np.ndarray) -> np.ndarray:
    values = grey.astype(np.float32)
    return values - cv2.GaussianBlur(values, (0, 0), FINE_SIGMA)
