"""Run directories as records. A record says what is missing or damaged; reading never fails."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from cpanet.config.equivalence import fingerprint
from cpanet.options import current
from cpanet.records.result_file import FILE, DamagedResult, read_result, read_rows, read_text
from cpanet.report.statistics import Episodes, mean_iou
from cpanet.report.values import located

COMPLETED, FAILED, UNFINISHED = "completed", "failed", "unfinished"
KNOWN_ENDS = ("failed", "diverged", "interrupted")
WHICH = ("best", "last")
BASELINE = "floor"  # in files: the training-free baseline that a run evaluates on its own episodes
COUNTS = ("inter_fg", "union_fg", "inter_bg", "union_bg")


# fields that a left-out job takes from the one that computes the same
SHARED = ("status", "reason", "best", "last", "untrained", "baseline", "episodes", "metrics", "result")


class Score(NamedTuple):
    """Scores of one evaluated epoch, fractions in 0–1."""

    epoch: int
    miou: float
    fb_iou: float
    class_iou: dict[str, float]


@dataclass
class Run:
    """One run directory. ``status`` is completed, failed, diverged, interrupted or unfinished."""

    directory: Path
    sweep: Path
    status: str = UNFINISHED
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    best: Score | None = None
    last: Score | None = None
    untrained: Score | None = None
    baseline: Score | None = None
    episodes: dict[str, Episodes] = field(default_factory=dict)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)  # a row an epoch, NaN where there is no value
    result: dict[str, Any] = field(default_factory=dict)
    duplicate_of: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The directory, below its sweep."""
        return self.directory.relative_to(self.sweep).as_posix()

    @property
    def completed(self) -> bool:
        return self.status == COMPLETED

    @property
    def failed(self) -> bool:
        return self.status in KNOWN_ENDS

    @property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.config)

    def score(self, which: str) -> Score | None:
        """Scores of the ``best`` or the ``last`` epoch, or of the training-free baseline (``floor``)."""
        return {"best": self.best, "last": self.last, BASELINE: self.baseline}[which]

    def fact(self, *path: str) -> Any:
        """A value of ``result.json`` by its keys, None where there is none."""
        value: Any = self.result
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def collect(directories: Iterable[Path]) -> list[Run]:
    """All runs at or below ``directories``, in the order of the directories and their names."""
    runs = [
        _read(run, Path(sweep))
        for sweep in directories
        for run in sorted(run_directories(Path(sweep)), key=_natural)
    ]
    _resolve_duplicates(runs)
    return runs


def run_directories(top: Path) -> Iterator[Path]:
    """Directories that a run has been started in."""
    for folder, children, files in os.walk(top):
        if FILE in files or ".hydra" in children:
            children.clear()
            yield Path(folder)
        else:
            children[:] = [child for child in children if not child.startswith(".")]


def _read(directory: Path, sweep: Path) -> Run:
    run = Run(directory, sweep)
    run.overrides = _overrides(directory)
    try:
        result = read_result(directory)
        run.config = _config(directory, result)
        if result is None:
            return run
        run.result = result
        _take_result(run, result)
        if run.status != "duplicate":
            run.episodes = _episodes(directory)
            run.metrics = _metrics(directory)
            _check_scores(run)
    except DamagedResult as problem:
        run.status, run.reason = FAILED, str(problem)
    return run


def _take_result(run: Run, result: dict[str, Any]) -> None:
    status = result.get("status")
    run.status = status if status in (COMPLETED, "duplicate", *KNOWN_ENDS) else FAILED
    run.reason = _text(result.get("reason")) or ("" if status in (COMPLETED, "duplicate") else _text(status))
    if status == "interrupted" and not result.get("reason"):
        run.reason = "interrupted; resume=true goes on with it"
    run.best, run.last = _score(result, "best"), _score(result, "last")
    run.untrained, run.baseline = _score(result, "untrained"), _score(result, BASELINE)
    if run.completed and (run.best is None or run.last is None):
        raise DamagedResult("result.json: a completed run without scores")


def _resolve_duplicates(runs: list[Run]) -> None:
    """Give a job that was left out the numbers of the one that computes the same."""
    by_path = {run.directory.resolve(): run for run in runs}
    for run in runs:
        if run.status != "duplicate":
            continue
        target = (run.directory / _text(run.result.get("duplicate_of"))).resolve()
        original = by_path.get(target)
        if original is None and run.sweep.resolve() in target.parents:
            run.status = UNFINISHED  # the other job has not begun yet
            continue
        if original is None or original is run or original.duplicate_of or original.status == "duplicate":
            run.status, run.reason = FAILED, "result.json: the run it duplicates is not in this sweep"
            continue
        if run.config and original.config and run.fingerprint != original.fingerprint:
            run.status, run.reason = FAILED, f"result.json: {original.name} does not compute the same"
            continue
        run.duplicate_of = original.directory
        for name in SHARED:
            setattr(run, name, getattr(original, name))


# ---------------------------------------------------------------------- files


def _config(directory: Path, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """The resolved configuration: the record's own, else what Hydra kept."""
    recorded = result.get("config") if result else None
    if not (isinstance(recorded, dict) and recorded):
        composed = _yaml(directory / ".hydra" / "config.yaml")
        recorded = _resolved(composed, composed) if isinstance(composed, dict) else {}
    return located(current(recorded), started_in(directory / ".hydra" / "hydra.yaml"))


def started_in(kept: Path) -> str:
    """The directory that a command was typed in, as Hydra keeps it in ``hydra.yaml`` or ``multirun.yaml``; else empty."""
    found = _yaml(kept)
    for key in ("hydra", "runtime", "cwd"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _overrides(directory: Path) -> tuple[str, ...]:
    typed = _yaml(directory / ".hydra" / "overrides.yaml")
    return tuple(_text(item) for item in typed) if isinstance(typed, list) else ()


def _yaml(path: Path) -> Any:
    """Plain data of a YAML file; None where it is missing or damaged: what it says is said elsewhere too."""
    try:
        return yaml.safe_load(read_text(path) or "")
    except (DamagedResult, yaml.YAMLError, RecursionError, ValueError):
        return None


_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def _resolved(value: Any, whole: Any, depth: int = 8) -> Any:
    """``value`` with ``${a.b}`` replaced. Nothing but plain references: resolvers reach the environment."""
    if isinstance(value, dict):
        return {str(key): _resolved(child, whole, depth) for key, child in value.items()}
    if isinstance(value, list):
        return [_resolved(child, whole, depth) for child in value]
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if not reference or depth == 0:
        return value
    found = whole
    for key in reference[1].split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return _resolved(found, whole, depth - 1)


def _score(result: Mapping[str, Any], which: str) -> Score | None:
    values = result.get(which)
    if values is None:
        return None
    try:
        score = Score(
            int(values["epoch"]),
            float(values["miou"]),
            float(values["fb_iou"]),
            {str(name): float(iou) for name, iou in values["class_iou"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise DamagedResult(f"result.json: damaged scores of {which}") from None
    if not all(0 <= value <= 1 for value in (score.miou, score.fb_iou, *score.class_iou.values())):
        raise DamagedResult(f"result.json: scores of {which} outside 0–1")
    return score


def _episodes(directory: Path) -> dict[str, Episodes]:
    """Episodes of each evaluation that a report shows, sorted by key; by hand, for a sweep has tens of thousands."""
    found: dict[str, list[tuple[tuple[str, str, str], list[int]]]] = {}
    try:
        for row in read_rows(directory, "episodes.csv") or ():
            key = (row["class"], row["query"], row["supports"])
            found.setdefault(row["which"], []).append((key, [int(row[name]) for name in COUNTS]))
        return {
            which: Episodes(
                tuple(key for key, _ in part), np.array([counts for _, counts in part], dtype=np.int64)
            )
            for which, rows in found.items()
            if which in (*WHICH, BASELINE) and (part := sorted(rows))
        }
    except (KeyError, ValueError, OverflowError):
        raise DamagedResult("episodes.csv: damaged, columns or counts are not as written") from None


def _metrics(directory: Path) -> pd.DataFrame:
    try:
        return pd.DataFrame(read_rows(directory, "metrics.csv")).apply(pd.to_numeric)
    except ValueError:
        raise DamagedResult("metrics.csv: damaged, not numbers") from None


def _check_scores(run: Run) -> None:
    """``result.json`` and ``episodes.csv`` must tell the same story."""
    if not run.completed:
        return  # a run that goes on has newer episodes than its last record
    for which, episodes in run.episodes.items():
        score = run.score(which)
        if score is not None and not math.isclose(mean_iou(episodes), score.miou, abs_tol=1e-6):
            raise DamagedResult(f"episodes.csv: its mIoU of {which} is not the one in result.json")
    if not run.episodes:
        run.notes.append("no episodes.csv: no interval")


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _natural(path: Path) -> list[tuple[int, float, str]]:
    """Sort key: numbers in names by value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(path))
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts)]
