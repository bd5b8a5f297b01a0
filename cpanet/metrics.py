"""Intersection over union, as the paper reports it: mIoU and FB-IoU over all test episodes.

Counts are integers from comparisons, so that any order of accumulation gives the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cpanet.bilinear import interpolation_matrix


class Counts(NamedTuple):
    """Pixels of one episode: intersection and union of foreground and background; 255 is left out."""

    inter_fg: int
    union_fg: int
    inter_bg: int
    union_bg: int

    @property
    def iou_fg(self) -> float:
        """IoU of the defect."""
        return iou(self.inter_fg, self.union_fg)


class Scores(NamedTuple):
    """Fractions in 0–1; ``class_iou`` maps class index to foreground IoU."""

    miou: float
    fb_iou: float
    class_iou: dict[int, float]


def predicted(logit_difference: np.ndarray, height: int, width: int) -> np.ndarray:
    """Foreground (height, width), bool, at the original size of an image tested on an (S, S) canvas.

    ``logit_difference`` (S, S) is foreground minus background. As in the released code the whole canvas is
    resized to the square of the longer side (bilinear, align_corners=True), whose top-left part is the
    image. A tie is background, as with argmax.
    """
    longer = max(height, width)
    matrix = interpolation_matrix(longer, logit_difference.shape[0])
    # Resizing is linear: the difference of the resized logits is the resized difference.
    return matrix[:height] @ logit_difference.astype(np.float64) @ matrix[:width].T > 0


def count(prediction: np.ndarray, label: np.ndarray) -> Counts:
    """Compare a prediction, bool (H, W), with a label, uint8 (H, W) {0, 1, 255}."""
    foreground, background = label == 1, label == 0
    fg_hit = np.count_nonzero(prediction & foreground)
    bg_hit = np.count_nonzero(~prediction & background)
    fg_miss = np.count_nonzero(foreground) - fg_hit
    bg_miss = np.count_nonzero(background) - bg_hit
    missed = fg_miss + bg_miss
    return Counts(fg_hit, fg_hit + missed, bg_hit, bg_hit + missed)


def episode_counts(logit_difference: np.ndarray, mask: np.ndarray) -> Counts:
    """Counts of one test episode.

    ``logit_difference`` (S, S): foreground minus background logit on the test canvas; ``mask`` (H, W): the
    query's original mask. The square around it, beyond the image, is ignored.
    """
    return count(predicted(logit_difference, *mask.shape), mask)


def iou(intersection: int, union: int) -> float:
    """0 where there is nothing at all, as in the released code."""
    return intersection / union if union else 0.0


def summarise(counts: Sequence[Counts], class_index: Sequence[int]) -> Scores:
    """mIoU, FB-IoU and each class's IoU over all episodes; ``class_index[i]`` is the class of ``counts[i]``.

    Class IoU is summed intersection over summed union of the foreground; mIoU is its mean over the classes
    that occur; FB-IoU is the mean of foreground and background IoU, each summed over all episodes.
    """
    if len(counts) == 0:
        raise ValueError("no episodes to summarise")
    table = np.asarray(counts, np.int64)
    classes = np.asarray(class_index)
    class_iou = {}
    for index in np.unique(classes):
        inter, union = table[classes == index, :2].sum(axis=0)
        class_iou[int(index)] = iou(int(inter), int(union))
    inter_fg, union_fg, inter_bg, union_bg = (int(n) for n in table.sum(axis=0))
    fb_iou = (iou(inter_fg, union_fg) + iou(inter_bg, union_bg)) / 2
    return Scores(float(np.mean(list(class_iou.values()))), fb_iou, class_iou)
