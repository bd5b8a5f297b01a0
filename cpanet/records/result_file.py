"""``result.json``, the record of how a run ended: what it holds, its one reader and its one writer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from cpanet.errors import UserError
from cpanet.files import write_atomically

if TYPE_CHECKING:
    from cpanet.data import DefectDataset

FILE = "result.json"
LARGEST = 64 * 2**20  # bytes; a record is kilobytes, and a file from elsewhere may be anything


class ScoresOfEpoch(TypedDict):
    """Scores of one evaluation, fractions in 0-1; ``class_iou`` by the names of the tested classes."""

    epoch: int
    miou: float
    fb_iou: float
    class_iou: dict[str, float]


class Result(TypedDict, total=False):
    """The content of ``result.json``. Each task writes some of it, and versions before this one wrote less.

    ``task`` is absent in records of training; ``floor`` is the training-free baseline on the run's own episodes.
    """

    task: str
    status: str  # completed, failed, diverged, interrupted, duplicate
    reason: str | None
    warnings: list[str]
    # training and evaluation
    best: ScoresOfEpoch | None
    last: ScoresOfEpoch | None
    untrained: ScoresOfEpoch | None
    floor: ScoresOfEpoch | None
    dataset: dict[str, Any]  # see dataset_facts
    backbone_weights: str
    seed: int
    iterations: int
    # of a job of a sweep that another job computes, by its directory
    duplicate_of: str
    # a task's own content (evaluate, predict, export) stands beside these
    checkpoint: str | None
    # where and how
    config: dict[str, Any]
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    git_commit: str | None
    wall_seconds: float
    peak_memory_mb: float


class DamagedResult(UserError):
    """A file of a run's record that is there and is not what it claims to be; the message begins with the file's name."""


def dataset_facts(dataset: DefectDataset, fold: int, shot: int, test_episodes: int) -> dict[str, Any]:
    """Facts of the data set that a run worked on, for its record."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "fold": fold,
        "shot": shot,
        "test_episodes": test_episodes,
        "notes": dataset.notes,
    }


def read_text(path: Path) -> str | None:
    """The content of a file of a run's record, None where it is not there. Raises :class:`DamagedResult`."""
    try:
        if path.stat().st_size > LARGEST:
            raise DamagedResult(f"{path.name}: larger than {LARGEST >> 20} MiB, no record of a run")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedResult(f"{path.name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DamagedResult(f"{path.name}: damaged, not text") from None


def read_rows(directory: Path, name: str) -> list[dict[str, str]] | None:
    """The rows of ``directory``'s ``episodes.csv`` or ``metrics.csv``, by column, None where there is no such file.

    Raises :class:`DamagedResult`.
    """
    text = read_text(directory / name)
    if text is None:
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DamagedResult(f"{name}: damaged ({error})") from None
    if any(None in row or None in row.values() for row in rows):
        raise DamagedResult(f"{name}: damaged, rows of different lengths")
    return rows


def read_result(directory: Path) -> dict[str, Any] | None:
    """The content of ``directory``'s ``result.json`` (see :class:`Result`), None where there is none.

    Values are as they stand in the file: a reader of scores checks these. Raises :class:`DamagedResult`.
    """
    text = read_text(directory / FILE)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedResult(f"{FILE}: damaged, not JSON") from None
    if not isinstance(found, dict):
        raise DamagedResult(f"{FILE}: damaged, not a record")
    return found


def write_result(directory: Path, result: Result | Mapping[str, Any]) -> None:
    """Replace ``directory``'s ``result.json``, whole. Raises :class:`cpanet.files.CannotWrite`."""
    write_atomically(directory / FILE, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
