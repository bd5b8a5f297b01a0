"""Run directories as records. A record says what is missing or damaged; reading never fails."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, Field, ValidationError

from cpanet.config.equivalence import fingerprint
from cpanet.metrics import Counts
from cpanet.options import current
from cpanet.records.result_file import FILE, DamagedResult, read_result, read_rows, read_text
from cpanet.report.statistics import Episodes, mean_iou
from cpanet.report.values import at, located, natural

COMPLETED, FAILED, UNFINISHED, DUPLICATE = "completed", "failed", "unfinished", "duplicate"
KNOWN_ENDS = ("failed", "diverged", "interrupted")
WHICH = ("best", "last")
BASELINE = "floor"  # in files: the training-free baseline that a run evaluates on its own episodes

Fraction = Annotated[float, Field(ge=0, le=1)]


class Score(BaseModel):
    """Scores of one evaluated epoch."""

    epoch: int
    miou: Fraction
    fb_iou: Fraction
    class_iou: dict[str, Fraction]


@dataclass
class Run:
    """One run directory. ``status`` is completed, failed, diverged, interrupted or unfinished."""

    directory: Path
    sweep: Path
    status: str = UNFINISHED
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    scores: dict[str, Score] = field(
        default_factory=dict
    )  # of best, last, untrained and BASELINE, where known
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


def collect(directories: Iterable[Path]) -> list[Run]:
    """All runs at or below ``directories``, in the order of the directories and their names."""
    runs = [
        _read(run, sweep)
        for sweep in directories
        for run in sorted(run_directories(sweep), key=lambda path: natural(str(path)))
    ]
    by_path = {run.directory.resolve(): run for run in runs}
    return [_resolved_duplicate(run, by_path) if run.status == DUPLICATE else run for run in runs]


def run_directories(top: Path) -> Iterator[Path]:
    """Directories that a run has been started in."""
    for folder, children, files in os.walk(top):
        if FILE in files or ".hydra" in children:
            children.clear()
            yield Path(folder)
        else:
            children[:] = [child for child in children if not child.startswith(".")]


def _read(directory: Path, sweep: Path) -> Run:
    typed = read_yaml(directory / ".hydra" / "overrides.yaml")
    run = Run(directory, sweep, overrides=tuple(map(_text, typed)) if isinstance(typed, list) else ())
    try:
        result = read_result(directory)
        run.config = _config(directory, result or {})
        if result is not None:
            _take_result(run, result)
    except DamagedResult as problem:
        run.status, run.reason = FAILED, str(problem)
    return run


def _take_result(run: Run, result: dict[str, Any]) -> None:
    run.result, status = result, result.get("status")
    run.status = str(status) if status in (COMPLETED, DUPLICATE, *KNOWN_ENDS) else FAILED
    run.reason = _text(result.get("reason")) or ("" if status in (COMPLETED, DUPLICATE) else _text(status))
    if status == "interrupted" and not result.get("reason"):
        run.reason = "interrupted; resume=true goes on with it"
    for which in (*WHICH, "untrained", BASELINE):
        if result.get(which) is not None:
            run.scores[which] = _score(result[which], which)
    if run.completed and not set(WHICH) <= set(run.scores):
        raise DamagedResult("result.json: a completed run without scores")
    if run.status == DUPLICATE:
        return
    run.episodes = _episodes(run.directory)
    run.metrics = _metrics(run.directory)
    if run.completed:  # a run that goes on has newer episodes than its last record
        for which in run.episodes.keys() & run.scores.keys():
            if not math.isclose(mean_iou(run.episodes[which]), run.scores[which].miou, abs_tol=1e-6):
                raise DamagedResult(f"episodes.csv: its mIoU of {which} is not the one in result.json")
        if not run.episodes:
            run.notes.append("no episodes.csv: no interval")


def _resolved_duplicate(run: Run, by_path: Mapping[Path, Run]) -> Run:
    """A job that was left out, with the numbers of the one that computes the same."""
    target = (run.directory / _text(run.result.get("duplicate_of"))).resolve()
    original = by_path.get(target)
    if original is None and run.sweep.resolve() in target.parents:
        return replace(run, status=UNFINISHED)  # the other job has not begun yet
    if original is None or original.status == DUPLICATE:
        return replace(run, status=FAILED, reason="result.json: the run it duplicates is not in this sweep")
    if run.config and original.config and fingerprint(run.config) != fingerprint(original.config):
        return replace(run, status=FAILED, reason=f"result.json: {original.name} does not compute the same")
    own = {name: getattr(run, name) for name in ("directory", "sweep", "config", "overrides", "notes")}
    return replace(original, **own, duplicate_of=original.directory)


# ---------------------------------------------------------------------- files


def _config(directory: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration: the record's own, else what Hydra kept."""
    recorded = result.get("config")
    if not (isinstance(recorded, dict) and recorded):
        composed = read_yaml(directory / ".hydra" / "config.yaml")
        recorded = _resolved(composed, composed) if isinstance(composed, dict) else {}
    return located(current(recorded), started_in(directory / ".hydra" / "hydra.yaml"))


def started_in(kept: Path) -> str:
    """The directory that a command was typed in, as Hydra keeps it in ``hydra.yaml`` or ``multirun.yaml``; else empty."""
    found = at(read_yaml(kept), "hydra", "runtime", "cwd")
    return found if isinstance(found, str) else ""


def read_yaml(path: Path) -> Any:
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
    return _resolved(at(whole, *reference[1].split(".")), whole, depth - 1)


def _score(values: Any, which: str) -> Score:
    try:
        return Score.model_validate(values)
    except ValidationError as error:
        outside = all(problem["type"].endswith("than_equal") for problem in error.errors())
        words = f"scores of {which} outside 0–1" if outside else f"damaged scores of {which}"
        raise DamagedResult(f"result.json: {words}") from None


def _episodes(directory: Path) -> dict[str, Episodes]:
    """Episodes of each evaluation that a report shows, sorted by key; by hand, for a sweep has tens of thousands."""
    found: dict[str, list[tuple[tuple[str, str, str], list[int]]]] = {}
    try:
        for row in read_rows(directory, "episodes.csv") or ():
            key = (row["class"], row["query"], row["supports"])
            found.setdefault(row["which"], []).append((key, [int(row[name]) for name in Counts._fields]))
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


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())
