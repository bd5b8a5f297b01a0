"""The data set of a configuration, read once in a process: the check before a run and the runs of a sweep share it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from cpanet.data.catalog import load_dataset
from cpanet.data.dataset import DefectDataset


def dataset_of(section: Any, shot: int) -> DefectDataset:
    """The data set that a ``data`` section describes, in memory; every class has images for ``shot`` supports.

    Raises UserError with all its problems.
    """
    return _read(section.name, section.root, section.mask_threshold, shot + 1, section.folds)


@lru_cache(maxsize=2)  # 1 and 5 shots are read apart
def _read(
    name: str, root: str | None, mask_threshold: int | None, min_images: int, folds: int | None
) -> DefectDataset:
    return load_dataset(
        name,
        Path(root) if root else None,
        mask_threshold=mask_threshold,
        min_images=min_images,
        folds=folds,
    )
