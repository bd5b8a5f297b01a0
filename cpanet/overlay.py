"""Masks drawn onto pictures: of predictions, figures, reports and the page. Pictures are uint8 RGB (H, W, 3), masks bool."""

from __future__ import annotations

import cv2
import numpy as np

TRUTH, PREDICTION = (64, 220, 90), (235, 60, 60)

Colour = tuple[int, int, int]


def tint(picture: np.ndarray, mask: np.ndarray, colour: Colour, strength: float) -> np.ndarray:
    """A copy of ``picture`` with ``mask`` mixed with ``colour``; ``strength`` 0–1 is the colour's share."""
    drawn = picture.copy()
    drawn[mask] = ((1 - strength) * drawn[mask] + strength * np.array(colour)).astype(np.uint8)
    return drawn


def outline(picture: np.ndarray, mask: np.ndarray, colour: Colour, thickness: int = 1) -> np.ndarray:
    """A copy of ``picture`` with the borders of ``mask``, holes included, in ``colour``."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture.copy(), contours, -1, colour, thickness)


def overlay(
    picture: np.ndarray,
    filled: np.ndarray | None = None,
    outlined: np.ndarray | None = None,
    strength: float = 0.5,
    rim: bool = False,
) -> np.ndarray:
    """``picture`` with the prediction ``filled`` tinted red and the truth ``outlined`` in green.

    ``rim``: the prediction is outlined, too, by lines that grow with the picture.
    """
    drawn = picture if filled is None else tint(picture, filled, PREDICTION, strength)
    thickness = max(1, round(max(picture.shape[:2]) / 600)) if rim else 1
    if rim and filled is not None:
        drawn = outline(drawn, filled, PREDICTION, thickness)
    return drawn.copy() if outlined is None else outline(drawn, outlined, TRUTH, thickness)
