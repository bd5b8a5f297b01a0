"""The numbers of a table: every cell with mean, deviation, difference to the reference, published value, and remarks.

Fractions become percent here; from here on nothing is computed any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cpanet.config.equivalence import covered
from cpanet.report.labels import axis_label, phrase
from cpanet.report.pivot import Cell, Pivot, function_of, pivot
from cpanet.report.runs import BASELINE, WHICH, Run, collect
from cpanet.report.statistics import Block, Interval, Unpaired, compare, spread_over_seeds
from cpanet.report.table_spec import Overrides, Source
from cpanet.report.values import ABSENT, MEAN, Key, Value, canonical, value_of

METRICS = {"miou": "mIoU", "fb_iou": "FB-IoU"}
NOT_MIXED = ("data", "profile", "protocol", "recipe", "train", "evaluate", "device", "backbone.weights_used")
SETTINGS = (
    "data", "fold", "shot", "backbone", "ablation", "loss.k", "protocol", "profile", "recipe", "data.image_size",
    "train.epochs",
)  # fmt: skip


@dataclass(frozen=True)
class Stat:
    """Mean and standard deviation over seeds, percent; no deviation from one seed."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """To the reference or the baseline, percent points."""

    value: float
    low: float
    high: float
    marked: bool  # the interval excludes 0


@dataclass(frozen=True)
class Published:
    """Published values of a cell, percent by metric, and how far the cell is from them."""

    values: Mapping[str, float | None]
    differences: Mapping[str, float | None]
    comparable: bool


@dataclass(frozen=True)
class Baseline:
    """Training-free baseline of a cell's runs, and the cell's distance to it in mIoU."""

    score: Mapping[str, Stat]
    difference: Difference | None
    below: bool  # the cell's mean mIoU is lower

    @property
    def identity(self) -> tuple[float, ...]:
        """Values that tell one baseline from another; not the number of seeds, which grows while a sweep runs."""
        return tuple(round(self.score[metric].mean, 6) for metric in METRICS)


@dataclass
class Entry:
    """One cell (or the mean of several) at the best or the last epoch; scores and differences by metric."""

    key: Key
    which: str
    status: str  # done, partial, failed, pending
    seeds: tuple[int, ...] = ()
    asked: int = 0  # seeds that belong to the cell
    pending: bool = False  # some have neither finished nor failed
    score: dict[str, Stat] = field(default_factory=dict)
    difference: dict[str, Difference] = field(default_factory=dict)
    relation: str = ""  # reference, unpaired: why there is no difference
    same_as: tuple[Key, ...] = ()  # rows that compute the same function
    baseline: Baseline | None = None
    published: dict[str, Published] = field(default_factory=dict)
    footnotes: tuple[int, ...] = ()


@dataclass
class Summary:
    """A table's content; see :func:`summarise`."""

    title: str
    directories: list[Path]
    pivot: Pivot
    runs: list[Run]
    entries: dict[tuple[Key, str], Entry]
    sources: list[Source]
    settings: str
    footnotes: list[str]
    notes: list[str]
    noise: str

    @property
    def keys(self) -> list[Key]:
        """Of the entries, in order, means included."""
        return list(dict.fromkeys(key for key, _ in self.entries))

    def columns(self) -> list[Key]:
        """Column keys, means last; ``[()]`` where there are none."""
        table = self.pivot
        found = {key[len(table.rows) :] for key in self.keys}
        order = {axis: {v: i for i, v in enumerate([*table.values[axis], MEAN])} for axis in table.columns}
        means = table.columns.index(table.mean_over) if table.mean_over else None
        return sorted(
            found,
            key=lambda key: (
                means is not None and key[means] == MEAN,
                [order[axis][v] for axis, v in zip(table.columns, key)],
            ),
        )

    def label(self, key: Key) -> str:
        """A cell in words."""
        return label(self.pivot, key)


def summarise(directories: Sequence[Path], reference: Overrides | None = None) -> Summary:
    """Everything that the table of these sweep (or run) directories holds.

    ``reference``: the row to compare with, by some of its values, in place of the sweeps' own.
    """
    directories = [Path(directory) for directory in directories]
    runs = collect(directories)
    return _Builder(pivot(runs, directories, reference), runs).build(directories)


def label(table: Pivot, key: Key) -> str:
    """The values of the axes that vary, in words; the title where nothing varies."""
    words = {
        axis: phrase(axis, value, table.values[axis], table.labels.get(axis))
        for axis, value in zip(table.axes, key)
    }
    parts = [
        words[axis] for axis, value in zip(table.axes, key) if len(table.values[axis]) > 1 and value != ABSENT
    ]
    return " · ".join(parts) or " · ".join(words.values()) or "all runs"


class _Builder:
    """Collects remarks while it fills the entries of one table."""

    def __init__(self, table: Pivot, runs: list[Run]) -> None:
        self.table = table
        self.runs = runs
        self.groups = table.groups()
        self.configs = [run.config for run in runs if run.config]
        self.footnotes: list[str] = []
        self.notes = list(table.notes)
        self.mismatches: dict[str, list[str]] = {}
        self.unpaired: dict[str, list[str]] = {}

    def build(self, directories: list[Path]) -> Summary:
        sources = self._sources()
        functions = {key: tuple(cell.function for cell in cells) for key, cells in self.groups.items()}
        entries = {}
        for key, cells in self.groups.items():
            marks = self._footnotes(cells)
            same = [k for k, f in functions.items() if f == functions[key] and None not in f and k != key]
            for which in WHICH:
                entry = _entry(key, cells, which)
                entry.footnotes, entry.same_as = marks, tuple(same)
                self._compare(entry, cells)
                entry.baseline = _baseline(entry, cells)
                if which == "best":  # the publications report the best epoch
                    entry.published = self._published(entry, cells, sources)
                entries[key, which] = entry
        self._remarks(sources)
        return Summary(
            self.table.spec.title,
            directories,
            self.table,
            self.runs,
            entries,
            sources,
            self._settings(),
            self.footnotes,
            self.notes,
            _noise(self.table),
        )

    def _footnotes(self, cells: Sequence[Cell]) -> tuple[int, ...]:
        if len(cells) > 1:
            return ()
        where, marks = label(self.table, cells[0].key), []
        for text, seeds in _by_reason(cells[0].failed).items():
            of_seeds = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}" if seeds else ""
            marks.append(f"{where}{of_seeds}: {text}")
        for run in cells[0].repeated:
            marks.append(f"{where}, seed {run.seed} ran twice; {run.name} is not shown.")
        self.footnotes += marks
        return tuple(range(len(self.footnotes) - len(marks) + 1, len(self.footnotes) + 1))

    def _compare(self, entry: Entry, cells: Sequence[Cell]) -> None:
        reference = self.table.reference_of(entry.key, self.groups)
        if reference == entry.key:
            entry.relation = "reference"
        elif reference is not None and entry.score:
            try:
                entry.difference = _differences(cells, entry.which, self.groups[reference], entry.which)
            except Unpaired as reason:
                entry.relation = "unpaired"
                self.unpaired.setdefault(str(reason), []).append(label(self.table, entry.key))

    # ------------------------------------------------------------------ published values

    def _sources(self) -> list[Source]:
        """Sources with a value for this table; about another backbone only where none is about this one."""
        found = [
            source
            for source in self.table.spec.published
            if any(
                self._fits(cell, value.match) for cell in self.table.cells.values() for value in source.values
            )
        ]
        about = [
            source
            for source in found
            if "backbone" not in source.conditions
            or any(value_of(c, "backbone") == canonical(source.conditions["backbone"]) for c in self.configs)
        ]
        return about or found

    def _published(
        self, entry: Entry, cells: Sequence[Cell], sources: Iterable[Source]
    ) -> dict[str, Published]:
        found = {}
        for source in sources if len(cells) == 1 else ():
            value = next((v for v in source.values if self._fits(cells[0], v.match)), None)
            if value is None:
                continue
            differ = self._differing(cells[0], {**source.conditions, **value.match})
            remembered = self.mismatches.setdefault(source.source, [])
            remembered += [sentence for sentence in differ if sentence not in remembered]
            values = {metric: getattr(value, metric) for metric in METRICS}
            differences = {
                metric: entry.score[metric].mean - number if number is not None and entry.score else None
                for metric, number in values.items()
            }
            found[source.source] = Published(values, differences, not differ)
        return found

    def _fits(self, cell: Cell, match: Overrides) -> bool:
        return all(self._value(cell, key) == canonical(value) for key, value in match.items())

    def _differing(self, cell: Cell, conditions: Overrides) -> list[str]:
        """Every condition that does not hold in ``cell``, as a phrase."""
        found = [
            f"{axis_label(key)} {value}, here {self._value(cell, key)}"
            for key, value in conditions.items()
            if self._value(cell, key) != canonical(value)
        ]
        if any(run.fact("backbone_weights") == "random" for run in cell.runs.values()):
            found.append("ImageNet features, here random ones")
        return found

    def _value(self, cell: Cell, key: str) -> Value:
        """The value of ``key`` in a cell, also in one without runs where all others agree."""
        if key in self.table.axes:
            return cell.key[self.table.axes.index(key)]
        configs = [run.config for run in (*cell.runs.values(), *cell.failed)] or self.configs
        values = {value_of(config, key) for config in configs}
        return values.pop() if len(values) == 1 else ABSENT

    # ------------------------------------------------------------------ remarks

    def _settings(self) -> str:
        """The settings that all runs have in common."""
        parts = []
        for key in SETTINGS:
            values = {value_of(config, key) for config in self.configs}
            if len(values) == 1 and key not in self.table.axes:
                parts.append(phrase(key, values.pop(), labels=self.table.labels.get(key)))
        counts = {run.fact("dataset", "test_episodes") for run in self.runs} - {None}
        if len(counts) == 1:
            parts.append(f"{counts.pop()} test episodes")
        return " · ".join(parts)

    def _remarks(self, sources: Sequence[Source]) -> None:
        table = self.table
        for source in sources:
            if differ := self.mismatches.get(source.source):
                self.notes.append(
                    f"† Not comparable with {source.source}: published with {'; '.join(differ)}. "
                    "The differences marked † say nothing about either."
                )
        mixed = [axis for axis in table.axes if covered(axis, NOT_MIXED) and len(table.values[axis]) > 1]
        if mixed:
            names = " and ".join(axis_label(axis) for axis in mixed)
            self.notes.append(f"Rows or columns differ in {names}: compare within, not across.")
        for reason, labels in self.unpaired.items():
            self.notes.append(f"No interval to the reference ({reason}): {', '.join(dict.fromkeys(labels))}.")
        facts = {("device",): "devices", ("git_commit",): "commits", ("versions", "jittor"): "Jittors"}
        for fact, name in facts.items():
            found = {_short(run.fact(*fact)) for run in self.runs if run.completed and run.fact(*fact)}
            if len(found) > 1:
                self.notes.append(f"Runs come from different {name}: {', '.join(sorted(found))}.")
        self.notes += dict.fromkeys(f"{run.name}: {note}" for run in self.runs for note in run.notes)
        for run in table.unplaced:
            self.footnotes.append(f"{run.name}: {_shortened(run.reason or 'no configuration recorded')}")


# ---------------------------------------------------------------------- a cell


def _entry(key: Key, cells: Sequence[Cell], which: str) -> Entry:
    seeds = sorted(set.intersection(*(set(cell.runs) for cell in cells)))
    asked = len(set.union(*(cell.seeds for cell in cells)))
    pending = any(cell.pending for cell in cells)
    status = "pending"
    if seeds:
        status = "done" if len(seeds) == asked else "partial"
    elif any(cell.failed and not cell.runs and not cell.pending and not _goes_on(cell) for cell in cells):
        status = "failed"
    return Entry(key, which, status, tuple(seeds), asked, pending, _score(cells, seeds, which))


def _goes_on(cell: Cell) -> bool:
    """Whether all that ended was interrupted: ``resume=true`` goes on with it."""
    return all(run.status == "interrupted" for run in cell.failed)


def _score(cells: Sequence[Cell], seeds: Sequence[int], which: str) -> dict[str, Stat]:
    """By metric the statistics over ``seeds`` of the mean over ``cells``; nothing without seeds."""
    if not seeds:
        return {}
    return {
        metric: _stat(
            [
                100 * float(np.mean([getattr(cell.runs[seed].score(which), metric) for cell in cells]))
                for seed in seeds
            ]
        )
        for metric in METRICS
    }


def _baseline(entry: Entry, cells: Sequence[Cell]) -> Baseline | None:
    seeds = [seed for seed in entry.seeds if all(cell.runs[seed].baseline is not None for cell in cells)]
    if not seeds:
        return None
    # only random features depend on the seed
    score = {
        metric: replace(stat, sd=None) if stat.sd is not None and stat.sd < 1e-9 else stat
        for metric, stat in _score(cells, seeds, BASELINE).items()
    }
    difference = None
    with suppress(Unpaired):
        difference = _differences(cells, entry.which, cells, BASELINE)["miou"]
    return Baseline(score, difference, entry.score["miou"].mean < score["miou"].mean)


def _differences(
    cells: Sequence[Cell], which: str, reference: Sequence[Cell], other: str
) -> dict[str, Difference]:
    """By metric ``cells`` at ``which`` minus ``reference`` at ``other``. Raises :class:`Unpaired`."""
    found = compare([_block(cell, which) for cell in cells], [_block(cell, other) for cell in reference])
    return {metric: _points(interval) for metric, interval in found._asdict().items()}


def _block(cell: Cell, which: str) -> Block:
    block = {seed: run.episodes[which] for seed, run in cell.runs.items() if which in run.episodes}
    if not block:
        raise Unpaired("no episodes.csv")
    return block


def _stat(values: Sequence[float]) -> Stat:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Stat(float(np.mean(values)), sd, len(values))


def _points(found: Interval) -> Difference:
    return Difference(100 * found.difference, 100 * found.low, 100 * found.high, found.excludes_zero)


# ---------------------------------------------------------------------- words


def _noise(table: Pivot) -> str:
    """How much single runs of one function differ, in a sentence or two."""
    frame = pd.DataFrame(
        [
            (function_of(run), label(table, cell.key), seed, 100 * run.best.miou)
            for cell in table.cells.values()
            for seed, run in cell.runs.items()
            if run.best is not None
        ],
        columns=["function", "row", "seed", "miou"],
    )
    sentences = []
    scores = []
    for _, runs in frame.groupby("function", sort=False):
        of_seeds = runs.drop_duplicates("seed", keep="last")["miou"]
        scores.append(of_seeds.tolist())
        rows = runs["row"].unique()
        if len(rows) > 1:
            spread = spread_over_seeds(scores[-1:])
            words = spread and (
                f"; from seed to seed its best mIoU spreads by sd {spread.sd:.2f} points "
                f"({of_seeds.min():.2f} to {of_seeds.max():.2f}, {len(of_seeds)} seeds)"
            )
            sentences.append(f"{' and '.join(rows)} compute the same function{words or ''}.")
    pooled = spread_over_seeds(scores)
    if pooled:
        sentences.append(
            f"Pooled over all rows the sd over seeds is {pooled.sd:.2f} points of best mIoU ({pooled.degrees} degrees of "
            f"freedom): single runs of one configuration differ by up to {1.96 * 2**0.5 * pooled.sd:.1f} points in 95 of "
            "100 pairs."
        )
    elif scores:
        sentences.append("One seed a row: the noise from training is not known; give seed=0,1,2.")
    return " ".join(sentences)


def _by_reason(failed: Iterable[Run]) -> dict[str, list[int]]:
    """How runs ended → the seeds that did."""
    found: dict[str, list[int]] = {}
    for run in failed:
        reason = _shortened(run.reason or run.status)
        text = reason if reason.startswith(run.status) else f"{run.status}: {reason}"
        found.setdefault(text, []).extend([] if run.seed is None else [run.seed])
    return found


def _shortened(reason: str, longest: int = 300) -> str:
    return reason if len(reason) <= longest else reason[: longest - 1] + "…"


def _short(value: object) -> str:
    """Commits by their first digits; ``+`` (changed since) stays."""
    return re.sub(r"^([0-9a-f]{10})[0-9a-f]{30}(\+?)$", r"\1\2", str(value))
