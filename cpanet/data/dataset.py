"""A data set as the rest of the project sees it: decoded images, masks, classes and folds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpanet.data import transforms
from cpanet.errors import UserError


class Split(NamedTuple):
    """Classes and image indices of one fold; training and test classes never meet."""

    train_classes: tuple[int, ...]
    test_classes: tuple[int, ...]
    train_indices: np.ndarray
    test_indices: np.ndarray


@dataclass(frozen=True, eq=False)
class DefectDataset:
    """Images and masks of every class, decoded once and kept in memory.

    ``images[i]`` is uint8 RGB (H, W, 3), ``masks[i]`` uint8 (H, W) with 1 where the defect is
    and 255 where nothing counts, ``labels[i]`` the index of its class in ``classes`` and ``names[i]`` its path
    below ``root``.
    ``folds[f]`` names the test classes of fold f; ``fingerprint`` is a SHA-256 over names and files;
    ``notes`` says what was accepted although it was not quite as expected; ``value_range`` holds the values of pictures
    with more than 8 bits that became 0 and 255, None where all have 8.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    images: list[np.ndarray]
    masks: list[np.ndarray]
    labels: np.ndarray
    names: list[str]
    folds: tuple[tuple[str, ...], ...]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    value_range: tuple[float, float] | None = None
    leave_out: int | None = None  # a training class, by its number among the fold's: tested instead

    def __len__(self) -> int:
        return len(self.images)

    def indices_of(self, class_index: int) -> np.ndarray:
        """Indices of the images of one class, in natural order of their names."""
        return np.flatnonzero(self.labels == class_index)

    def split(self, fold: int) -> Split:
        """The classes and images that ``fold`` trains and tests on.

        With ``leave_out`` one of the fold's training classes is tested, the others are trained on, and the fold's test
        classes are not touched: decisions about a recipe are made so.
        """
        if not 0 <= fold < len(self.folds):
            raise UserError(
                f"fold={fold}: {self.name} has folds 0 to {len(self.folds) - 1}. Choose one of these."
            )
        test = tuple(sorted(self.classes.index(c) for c in self.folds[fold]))
        train = tuple(c for c in range(len(self.classes)) if c not in test)
        if self.leave_out is not None:
            if not 0 <= self.leave_out < len(train):
                raise UserError(
                    f"data.leave_out={self.leave_out}: fold {fold} of {self.name} has {len(train)} training classes. "
                    f"Choose 0 to {len(train) - 1}."
                )
            test = (train[self.leave_out],)
            train = tuple(c for c in train if c not in test)
        return Split(
            train,
            test,
            np.flatnonzero(np.isin(self.labels, train)),
            np.flatnonzero(np.isin(self.labels, test)),
        )

    def lost_masks(self, indices: Iterable[int], size: int) -> list[str]:
        """A sentence for each of the images ``indices`` whose mask has no defect pixel left at ``size`` pixels."""
        lost = []
        for i in indices:
            height, width = self.masks[i].shape
            shown = transforms.canvas_shape(height, width, size)
            if not np.any(transforms.resize_label(self.masks[i], *shown) == 1):
                lost.append(
                    f"{self.names[i]} has no defect pixel left at {size} pixels; as a support it shows nothing"
                )
        return lost
