"""The numbers of a table: every cell with mean, deviation, difference to the reference, published value, and remarks.

Fractions become percent here; from here on nothing is computed any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cpanet.report.arrange import FOUND, Arrangement, Cell, arrange
from cpanet.report.collect import FLOOR, WHICH, Run, collect
from cpanet.report.fingerprint import covered, fingerprint
from cpanet.report.floor import has_episodes, seeds_with_floor
from cpanet.report.labels import MEAN, axis_label, phrase
from cpanet.report.layout import Source
from cpanet.report.statistics import Block, Interval, Spread, Unpaired, compare, spread_over_seeds
from cpanet.report.values import ABSENT, Key, Value, canonical, value_of

NOT_MIXED = ("data", "profile", "protocol", "recipe", "train", "evaluate", "device", "backbone.weights_used")
SETTINGS = (
    "data",
    "fold",
    "shot",
    "backbone",
    "ablation",
    "loss.k",
    "protocol",
    "profile",
    "recipe",
    "data.image_size",
    "train.epochs",
)


@dataclass(frozen=True)
class Stat:
    """Mean and standard deviation over seeds, percent; no deviation from one seed."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """To the reference, percent points."""

    value: float
    low: float
    high: float
    marked: bool  # the interval excludes 0


@dataclass(frozen=True)
class Published:
    """What a source has for a cell, percent, and how far the cell is from it."""

    miou: float | None
    fb_iou: float | None
    miou_difference: float | None
    fb_iou_difference: float | None
    comparable: bool


@dataclass(frozen=True)
class Floor:
    """What the frozen features of a cell's runs give without training, and the cell's distance to it in mIoU."""

    miou: Stat
    fb_iou: Stat
    difference: Difference | None
    below: bool  # the cell's mean mIoU is lower

    @property
    def scores(self) -> tuple[float, float]:
        """What tells one floor from another; not the number of seeds, which grows while a sweep runs."""
        return round(self.miou.mean, 6), round(self.fb_iou.mean, 6)


@dataclass
class Entry:
    """One cell (or the mean of several) at the best or the last epoch."""

    key: Key
    which: str
    status: str  # done, partial, failed, pending
    seeds: tuple[int, ...] = ()
    asked: int = 0  # seeds that belong to the cell
    pending: bool = False  # some have neither finished nor failed
    miou: Stat | None = None
    fb_iou: Stat | None = None
    miou_difference: Difference | None = None
    fb_iou_difference: Difference | None = None
    relation: str = ""  # reference, same, unpaired: why there is no difference
    floor: Floor | None = None
    published: dict[str, Published] = field(default_factory=dict)
    footnotes: tuple[int, ...] = ()


@dataclass
class Summary:
    """A table's content; see :func:`summarise`."""

    title: str
    directories: list[Path]
    arrangement: Arrangement
    runs: list[Run]
    entries: dict[tuple[Key, str], Entry]
    keys: list[Key]  # of the entries, in order, means included
    sources: list[Source]
    settings: str
    footnotes: list[str]
    notes: list[str]
    noise: str

    def entry(self, row: Key, column: Key, which: str) -> Entry | None:
        """The entry in a row and a column."""
        arrangement = self.arrangement
        where = dict(zip([*arrangement.rows, *arrangement.columns], [*row, *column]))
        return self.entries.get((tuple(where[axis] for axis in arrangement.axes), which))

    def columns(self) -> list[Key]:
        """Column keys, each group over which a mean is taken followed by the mean."""
        return list(dict.fromkeys(self.arrangement.part(key, self.arrangement.columns) for key in self.keys))

    def label(self, key: Key) -> str:
        """A cell in words."""
        return label(self.arrangement, key)


def summarise(directories: Sequence[Path]) -> Summary:
    """Everything that the table of these sweep (or run) directories holds."""
    directories = [Path(directory) for directory in directories]
    runs = collect(directories)
    arrangement = arrange(runs, directories)
    return _Builder(arrangement, runs).build(directories)


def label(arrangement: Arrangement, key: Key) -> str:
    """The values of the axes that vary, in words; the title where nothing varies."""
    parts = [
        phrase(axis, value, arrangement.values[axis])
        for axis, value in zip(arrangement.axes, key)
        if len(arrangement.values[axis]) > 1
    ]
    return " · ".join(parts) or " · ".join(phrase(a, v) for a, v in zip(arrangement.axes, key)) or "all runs"


class _Builder:
    def __init__(self, arrangement: Arrangement, runs: list[Run]) -> None:
        self.table = arrangement
        self.runs = runs
        self.configs = [run.config for run in runs if run.config]
        self.footnotes: list[str] = []
        self.notes = list(arrangement.notes)
        self.mismatches: dict[str, list[str]] = {}
        self.unpaired: dict[str, list[str]] = {}

    def build(self, directories: list[Path]) -> Summary:
        table = self.table
        groups = self._groups()
        sources = self._sources()
        entries = {}
        marks = {key: self._footnotes(cells) for key, cells in groups.items()}
        for key, cells in groups.items():
            for which in WHICH:
                entry = self._entry(key, cells, which)
                entry.footnotes = marks[key]
                self._compare(entry, cells, groups)
                entry.floor = self._floor(entry, cells)
                if which == "best":  # the publications report the best epoch
                    entry.published = self._published(entry, cells, sources)
                entries[key, which] = entry
        self._remarks(sources)
        return Summary(
            table.layout.title,
            directories,
            table,
            self.runs,
            entries,
            list(groups),
            sources,
            self._settings(),
            self.footnotes,
            self.notes,
            self._noise(),
        )

    def _groups(self) -> dict[Key, list[Cell]]:
        """Cells by themselves, and the cells that a mean is taken over, in the table's order."""
        table = self.table
        groups: dict[Key, list[Cell]] = {}
        if table.mean_over is None:
            return {key: [cell] for key, cell in table.cells.items()}
        position = table.axes.index(table.mean_over)
        for row in table.row_keys():
            means: dict[Key, list[Cell]] = {}
            for column in table.column_keys():
                cell = table.at(row, column)
                if cell is not None:
                    mean = (*cell.key[:position], MEAN, *cell.key[position + 1 :])
                    means.setdefault(mean, []).append(cell)
                    groups[cell.key] = [cell]
            groups.update({key: cells for key, cells in means.items() if len(cells) > 1})
        return groups

    # ------------------------------------------------------------------ a cell

    def _entry(self, key: Key, cells: Sequence[Cell], which: str) -> Entry:
        seeds = sorted(set.intersection(*(set(cell.runs) for cell in cells)))
        asked = len(set.union(*(cell.seeds for cell in cells)))
        pending = any(cell.pending for cell in cells)
        entry = Entry(key, which, self._status(cells, seeds, asked), tuple(seeds), asked, pending)
        if seeds:
            entry.miou = _stat(self._scores(cells, seeds, which, "miou"))
            entry.fb_iou = _stat(self._scores(cells, seeds, which, "fb_iou"))
        return entry

    @staticmethod
    def _scores(cells: Sequence[Cell], seeds: Sequence[int], which: str, metric: str) -> list[float]:
        """A score a seed, percent, averaged over ``cells``."""
        return [
            100 * float(np.mean([getattr(cell.runs[seed].score(which), metric) for cell in cells]))
            for seed in seeds
        ]

    @staticmethod
    def _status(cells: Sequence[Cell], seeds: Sequence[int], asked: int) -> str:
        if seeds:
            return "done" if len(seeds) == asked else "partial"
        for cell in cells:
            ended = [
                run for run in cell.failed if run.status != "interrupted"
            ]  # that one goes on with resume=true
            if ended and not cell.runs and not cell.pending:
                return "failed"
        return "pending"

    def _footnotes(self, cells: Sequence[Cell]) -> tuple[int, ...]:
        if len(cells) > 1:
            return ()
        where, marks = label(self.table, cells[0].key), []
        for text, seeds in _by_reason(cells[0].failed).items():
            marks.append(f"{where}{_seeds_phrase(seeds)}: {text}")
        for run in cells[0].repeated:
            marks.append(f"{where}, seed {run.seed} ran twice; {run.name} is not shown.")
        self.footnotes += marks
        return tuple(range(len(self.footnotes) - len(marks) + 1, len(self.footnotes) + 1))

    # ------------------------------------------------------------------ differences

    def _compare(self, entry: Entry, cells: Sequence[Cell], groups: dict[Key, list[Cell]]) -> None:
        reference_key = self.table.reference_key(entry.key)
        reference = groups.get(reference_key)
        if reference_key == entry.key:
            entry.relation = "reference"
            return
        if reference is None or entry.miou is None:
            return
        if self._same_function(cells, reference):
            entry.relation = "same"
        try:
            found = compare(
                [_block(cell, entry.which) for cell in cells],
                [_block(cell, entry.which) for cell in reference],
            )
        except Unpaired as reason:
            entry.relation = entry.relation or "unpaired"
            self.unpaired.setdefault(str(reason), []).append(label(self.table, entry.key))
            return
        entry.miou_difference = _points(found.miou)
        entry.fb_iou_difference = _points(found.fb_iou)

    def _same_function(self, cells: Sequence[Cell], others: Sequence[Cell]) -> bool:
        mine, theirs = [[_function(cell) for cell in group] for group in (cells, others)]
        return None not in mine and mine == theirs

    def _floor(self, entry: Entry, cells: Sequence[Cell]) -> Floor | None:
        seeds = seeds_with_floor(cells, entry.seeds)
        if not seeds or entry.miou is None:
            return None
        miou, fb_iou = (
            _constant(_stat(self._scores(cells, seeds, FLOOR, metric))) for metric in ("miou", "fb_iou")
        )
        difference = None
        if has_episodes(cells):
            with suppress(Unpaired):
                found = compare(
                    [_block(cell, entry.which) for cell in cells], [_block(cell, FLOOR) for cell in cells]
                )
                difference = _points(found.miou)
        return Floor(miou, fb_iou, difference, entry.miou.mean < miou.mean)

    # ------------------------------------------------------------------ published values

    def _sources(self) -> list[Source]:
        """Sources with a value for this table; about another backbone only where none is about this one."""
        found = [
            source
            for source in self.table.layout.published
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
        for source in sources:
            value = next(
                (v for v in source.values if all(self._fits(cell, v.match) for cell in cells)),
                None,
            )
            if value is None or len(cells) > 1:
                continue
            differ = self._differing(cells[0], {**source.conditions, **value.match})
            for sentence in differ:
                self._remember(self.mismatches, source.source, sentence)
            found[source.source] = Published(
                value.miou,
                value.fb_iou,
                _minus(entry.miou, value.miou),
                _minus(entry.fb_iou, value.fb_iou),
                not differ,
            )
        return found

    def _fits(self, cell: Cell, match: dict) -> bool:
        return all(self._value(cell, key) == canonical(value) for key, value in match.items())

    def _differing(self, cell: Cell, conditions: dict) -> list[str]:
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

    @staticmethod
    def _remember(where: dict[str, list[str]], key: str, sentence: str) -> None:
        if sentence not in where.setdefault(key, []):
            where[key].append(sentence)

    # ------------------------------------------------------------------ remarks

    def _settings(self) -> str:
        """What all runs have in common."""
        parts = []
        for key in SETTINGS:
            values = {value_of(config, key) for config in self.configs}
            if len(values) == 1 and key not in self.table.axes:
                parts.append(phrase(key, values.pop()))
        counts = {run.fact("dataset", "test_episodes") for run in self.runs} - {None}
        if len(counts) == 1:
            parts.append(f"{counts.pop()} test episodes")
        return " · ".join(parts)

    def _remarks(self, sources: Sequence[Source]) -> None:
        table = self.table
        for source in sources:
            differ = self.mismatches.get(source.source)
            if differ:
                self.notes.append(
                    f"† Not comparable with {source.source}: published with {'; '.join(differ)}. "
                    "The differences marked † say nothing about either."
                )
        mixed = [axis for axis in table.axes if covered(axis, NOT_MIXED) and len(table.values[axis]) > 1]
        if mixed:
            names = " and ".join(axis_label(axis) for axis in mixed)
            self.notes.append(f"Rows or columns differ in {names}: compare within, not across.")
        for reason, labels in self.unpaired.items():
            where = ", ".join(dict.fromkeys(labels))
            self.notes.append(f"No interval to the reference ({reason}): {where}.")
        for fact, name in (
            (("device",), "devices"),
            (("git_commit",), "commits"),
            (("versions", "jittor"), "Jittors"),
        ):
            found = sorted(
                {_short(run.fact(*fact)) for run in self.runs if run.completed and run.fact(*fact)}
            )
            if len(found) > 1:
                self.notes.append(f"Runs come from different {name}: {', '.join(found)}.")
        for note in dict.fromkeys(f"{run.name}: {note}" for run in self.runs for note in run.notes):
            self.notes.append(note)
        for run in table.unplaced:
            self.footnotes.append(f"{run.name}: {_shortened(run.reason or 'no configuration recorded')}")

    def _noise(self) -> str:
        """The noise floor in a sentence or two."""
        by_function: dict[str, dict[int, float]] = {}
        rows: dict[str, list[str]] = {}
        for cell in self.table.cells.values():
            for seed, run in cell.runs.items():
                function = (
                    f"{fingerprint(run.config, seed=False)} {[run.fact(*path) for path in FOUND.values()]}"
                )
                assert run.best is not None
                by_function.setdefault(function, {})[seed] = 100 * run.best.miou
                self._remember(rows, function, label(self.table, cell.key))
        sentences = []
        for function, labels in rows.items():
            scores = list(by_function[function].values())
            if len(labels) > 1:
                sentence = f"{' and '.join(labels)} compute the same function"
                spread = spread_over_seeds([scores])
                if spread:
                    sentence += (
                        f"; from seed to seed its best mIoU spreads by sd {spread.sd:.2f} points "
                        f"({min(scores):.2f} to {max(scores):.2f}, {len(scores)} seeds)"
                    )
                sentences.append(sentence + ".")
        pooled = spread_over_seeds([list(scores.values()) for scores in by_function.values()])
        if pooled:
            sentences.append(_pooled(pooled))
        elif by_function:
            sentences.append("One seed a row: the noise from training is not known; give seed=0,1,2.")
        return " ".join(sentences)


def _pooled(spread: Spread) -> str:
    return (
        f"Pooled over all rows the sd over seeds is {spread.sd:.2f} points of best mIoU ({spread.degrees} degrees of "
        f"freedom): single runs of one configuration differ by up to {1.96 * 2**0.5 * spread.sd:.1f} points in 95 of 100 "
        "pairs."
    )


def _function(cell: Cell) -> str | None:
    """Fingerprint of what a cell's runs compute, seeds aside; None without runs."""
    found = {fingerprint(run.config, seed=False) for run in cell.runs.values()}
    return found.pop() if len(found) == 1 else None


def _block(cell: Cell, which: str) -> Block:
    block = {seed: run.episodes[which] for seed, run in cell.runs.items() if which in run.episodes}
    if not block:
        raise Unpaired("no episodes.csv")
    return block


def _stat(values: Sequence[float]) -> Stat:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Stat(float(np.mean(values)), sd, len(values))


def _constant(stat: Stat) -> Stat:
    """Without a deviation where there is none by nature: only random features depend on the seed."""
    return replace(stat, sd=None) if stat.sd is not None and stat.sd < 1e-9 else stat


def _points(interval: Interval) -> Difference:
    return Difference(
        100 * interval.difference, 100 * interval.low, 100 * interval.high, interval.excludes_zero
    )


def _minus(stat: Stat | None, published: float | None) -> float | None:
    return None if stat is None or published is None else stat.mean - published


def _by_reason(failed: Iterable[Run]) -> dict[str, list[int]]:
    """How runs ended → the seeds that did."""
    found: dict[str, list[int]] = {}
    for run in failed:
        reason = _shortened(run.reason or run.status)
        text = reason if reason.startswith(run.status) else f"{run.status}: {reason}"
        found.setdefault(text, []).extend([] if run.seed is None else [run.seed])
    return found


def _seeds_phrase(seeds: Sequence[int]) -> str:
    if not seeds:
        return ""
    return f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"


def _shortened(reason: str, longest: int = 300) -> str:
    return reason if len(reason) <= longest else reason[: longest - 1] + "…"


def _short(value: object) -> str:
    """Commits by their first digits; ``+`` (changed since) stays."""
    text = str(value)
    return re.sub(r"^([0-9a-f]{10})[0-9a-f]{30}(\+?)$", r"\1\2", text)
