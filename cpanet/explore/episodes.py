"""The test episodes that a run recorded, worst first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cpanet.errors import UserError
from cpanet.records.result_file import DamagedResult, read_rows


class RecordedEpisode(NamedTuple):
    """An episode of ``episodes.csv``: names as in the data set, IoU of the defect as recorded."""

    iou: float
    class_name: str
    query: str
    supports: tuple[str, ...]


def episodes_file(checkpoint: str | Path | None) -> Path | None:
    """``episodes.csv`` of the run that ``checkpoint``, a run's directory or a file in it, belongs to; None without."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    run = path if path.is_dir() else path.parent.parent
    file = run / "episodes.csv"
    return file if file.is_file() else None


def read_episodes(file: Path) -> dict[str, list[RecordedEpisode]]:
    """Records of each evaluation ("best", "last", "floor" where there is one), the lowest IoU first.

    Raises UserError for a file that is damaged.
    """
    found: dict[str, list[RecordedEpisode]] = {}
    try:
        for row in read_rows(file.parent, file.name) or ():
            union = int(row["union_fg"])
            record = RecordedEpisode(
                int(row["inter_fg"]) / union if union else 0.0,
                row["class"],
                row["query"],
                tuple(row["supports"].split(";")),
            )
            found.setdefault(row["which"], []).append(record)
    except (DamagedResult, KeyError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error
    return {which: sorted(records) for which, records in found.items()}
