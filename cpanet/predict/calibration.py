"""Where probability 0.5 lies, and how steep it is: from the supports, whose defect and background are known. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PART_OF_ONE, PART_OF_MORE = 0.5, 0.65  # of the way from background to defect, at which probability is 0.5
DEFECT_ODDS = 9.0
STEEPEST = 1e4


class Calibration(NamedTuple):
    """``probability = logistic(scale · (difference − offset))``, of the difference of defect and background logit.

    ``defect`` and ``background``: mean differences of the supports, NaN where nothing was calibrated.
    """

    offset: float = 0.0
    scale: float = 1.0
    defect: float = float("nan")
    background: float = float("nan")

    @property
    def is_found(self) -> bool:
        """Whether the supports' defect could be told from their background."""
        return self.defect > self.background

    def probability(self, difference: np.ndarray) -> np.ndarray:
        """Of differences of any shape, float32; exact at the offset and without overflow."""
        scaled = self.scale * (difference - np.float32(self.offset))
        return (0.5 * (1.0 + np.tanh(0.5 * scaled))).astype(np.float32)


def calibrate(differences: Sequence[np.ndarray], masks: Sequence[np.ndarray], supports: int) -> Calibration:
    """From the supports' own maps: differences float (H, W) and masks {0, 1, 255 = ignored} by their common prototype.

    Probability 0.5 lies between the mean on background and the mean on defect, each picture counting alike: half-way for
    a single support, which its own prototype explains better than it will any other picture, further up for more. From
    one mean to the other the logit grows by 2 ln DEFECT_ODDS. ``docs/results/predict`` compares this with other rules.
    Where the defect is no higher than the background, or a side is missing, ``is_found`` is False.
    """
    means = []
    for label in (1, 0):
        parts = [float(d[m == label].mean()) for d, m in zip(differences, masks) if (m == label).any()]
        means.append(float(np.mean(parts)) if parts else float("nan"))
    defect, background = means
    if not defect > background:
        return Calibration(defect=defect, background=background)
    part = PART_OF_ONE if supports == 1 else PART_OF_MORE
    steepness = 2 * np.log(DEFECT_ODDS) / (defect - background)
    return Calibration(
        background + part * (defect - background), float(min(steepness, STEEPEST)), defect, background
    )
