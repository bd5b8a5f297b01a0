"""How runs ended: ``result.json`` of run directories, as a sweep needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cpanet.config.keys import resolved, unresolved
from cpanet.records.result_file import FILE, DamagedResult, read_result, write_result


def read(directory: Path) -> dict[str, Any] | None:
    """``result.json`` of a run; None where there is none, or a damaged one: its job has not ended."""
    try:
        return read_result(directory)
    except DamagedResult:
        return None


def write(directory: Path, result: dict[str, Any]) -> None:
    """``result.json``, also of a job that never made its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    write_result(directory, result)


def score(result: dict[str, Any] | None) -> float:
    """Best mIoU of a completed run, not a number for any other."""
    if result is None or result.get("status") != "completed":
        return float("nan")
    return float(result["best"]["miou"])


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as far as it can be resolved, for the record: it may be what is wrong."""
    try:
        return resolved(config)
    except OmegaConfBaseException:
        return unresolved(config)


@dataclass(frozen=True)
class SweepTally:
    """Jobs by how they ended, and the seconds that the completed ones took."""

    jobs: int
    completed: int
    duplicates: int
    failed: tuple[tuple[str, str], ...]  # directory, reason
    seconds: float


def tally(sweep: Path, directories: Iterable[str] = ()) -> SweepTally:
    """The state of a sweep from what its runs have written; a duplicate of a failed run has failed.

    ``directories``: of its jobs; where these are not known beforehand, those that are there count.
    """
    names = list(directories) or sorted(path.parent.name for path in sweep.glob(f"*/{FILE}"))
    results = {name: read(sweep / name) for name in names}
    statuses: Counter[str] = Counter()
    failed, seconds = [], 0.0
    for name, result in results.items():
        own = result or {}
        meant = own
        if own.get("status") == "duplicate":
            meant = read(sweep / name / str(own.get("duplicate_of"))) or {}
        status = str(meant.get("status"))
        if status in ("failed", "diverged"):
            failed.append((name, str(meant.get("reason") or status)))
        elif status == "completed":
            statuses["duplicate" if own is not meant else "completed"] += 1
            seconds += float(own.get("wall_seconds") or 0.0) if own is meant else 0.0
    return SweepTally(len(names), statuses["completed"], statuses["duplicate"], tuple(failed), seconds)
