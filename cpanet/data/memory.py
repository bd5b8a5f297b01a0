"""The data set of a configuration, read once in a process: the check before a run and the runs of a sweep share it."""

from __future__ import annotations

from dataclasses import replace

from cpanet.data.dataset import DefectDataset
from cpanet.data_section import DataSection

MOST = 2  # 1 and 5 shots are read apart
kept: dict[str, DefectDataset] = {}


def dataset_of(section: DataSection, shot: int) -> DefectDataset:
    """The data set that a ``data`` section describes, in memory; every class has images for ``shot`` supports.

    Raises UserError with all its problems.
    """
    key = f"{shot} {section.model_dump_json(exclude={'image_size', 'workers', 'leave_out'})}"
    if key not in kept:
        dataset = section.read(shot + 1)
        for oldest in list(kept)[: len(kept) - MOST + 1]:
            del kept[oldest]
        kept[key] = dataset
    return kept[key] if section.leave_out is None else replace(kept[key], leave_out=section.leave_out)
