"""The numbers of a table: every cell with mean, deviation, difference to the reference, published value, and remarks.

Fractions become percent here; from here on nothing is computed any more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpanet.config.equivalence import covered
from cpanet.report.labels import axis_label
from cpanet.report.pivot import Cell, Pivot, function_of
from cpanet.report.runs import BASELINE, WHICH, Run, collect
from cpanet.report.statistics import Block, Interval, Unpaired, compare, spread_over_seeds
from cpanet.report.table_spec import Overrides, PublishedValue, Source
from cpanet.report.values import ABSENT, MEAN, Key, Value, at, canonical, value_of

METRICS = {"miou": "mIoU", "fb_iou": "FB-IoU"}
NOT_MIXED = ("data", "profile", "protocol", "recipe", "train", "evaluate", "device", "backbone.weights_used")
SETTINGS = (
    "data", "fold", "shot", "backbone", "ablation", "loss.k", "protocol", "profile", "recipe", "data.image_size",
    "train.epochs",
)  # fmt: skip


class Stat(NamedTuple):
    """Mean and standard deviation over seeds, percent; no deviation from one seed."""

    mean: float
    sd: float | None
    n: int


@dataclass
class Entry:
    """One cell (or several, for their mean) at the best or the last epoch; scores and differences by metric, percent."""

    key: Key
    which: str
    cells: Sequence[Cell]
    footnotes: tuple[int, ...] = ()
    same_as: tuple[Key, ...] = ()  # rows that compute the same function
    difference: dict[str, Interval] = field(default_factory=dict)  # to the reference
    relation: str = ""  # reference, unpaired: why there is no difference
    # by source, and whether it is comparable
    published: dict[str, tuple[PublishedValue, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seeds = sorted(set.intersection(*(set(cell.runs) for cell in self.cells)))
        self.asked = len(set.union(*(cell.seeds for cell in self.cells)))  # seeds that belong to the cell
        self.pending = any(cell.pending for cell in self.cells)
        self.score = _score(self.cells, self.seeds, self.which)
        known = [s for s in self.seeds if all(BASELINE in cell.runs[s].scores for cell in self.cells)]
        # training-free, of the same runs; only random features depend on the seed
        self.baseline = {
            metric: stat._replace(sd=None) if stat.sd is not None and stat.sd < 1e-9 else stat
            for metric, stat in _score(self.cells, known, BASELINE).items()
        }
        self.above: Interval | None = None  # difference to the baseline in mIoU
        if self.baseline:
            with suppress(Unpaired):
                self.above = _differences(self.cells, self.which, self.cells, BASELINE)["miou"]

    @property
    def below(self) -> bool:
        """Whether the mean mIoU is lower than the baseline's."""
        return bool(self.baseline) and self.score["miou"].mean < self.baseline["miou"].mean

    @property
    def status(self) -> str:
        """done, partial, failed, pending; what was interrupted is still to come: ``resume=true`` goes on with it."""
        if self.seeds:
            return "done" if len(self.seeds) == self.asked else "partial"
        ended = (cell.failed for cell in self.cells if not (cell.runs or cell.pending))
        return "failed" if any(run.status != "interrupted" for runs in ended for run in runs) else "pending"


class Summary:
    """Everything that the table of these sweep (or run) directories holds.

    ``reference``: the row to compare with, by some of its values, in place of the sweeps' own.
    """

    def __init__(self, directories: Sequence[Path], reference: Overrides | None = None) -> None:
        self.directories = [Path(directory) for directory in directories]
        self.runs = collect(self.directories)
        self.pivot = Pivot(self.runs, self.directories, reference)
        self.title = self.pivot.spec.title
        self.configs = [run.config for run in self.runs if run.config]
        self.footnotes: list[str] = []
        self.notes = list(self.pivot.notes)
        self.sources = self._sources()
        self.noise = _noise(self.pivot)
        self.entries: dict[tuple[Key, str], Entry] = {}
        groups = self.pivot.groups()
        functions = {key: [cell.function for cell in cells] for key, cells in groups.items()}
        unpaired: dict[str, dict[str, None]] = defaultdict(dict)
        mismatches: dict[str, dict[str, None]] = defaultdict(dict)
        for key, cells in groups.items():
            marks = self._footnotes(cells[0]) if len(cells) == 1 else ()
            same = [k for k, f in functions.items() if f == functions[key] and None not in f and k != key]
            reference_key = self.pivot.reference_of(key, groups)
            for which in WHICH:
                entry = self.entries[key, which] = Entry(key, which, cells, marks, tuple(same))
                if reference_key == key:
                    entry.relation = "reference"
                elif reference_key is not None and entry.score:
                    try:
                        entry.difference = _differences(cells, which, groups[reference_key], which)
                    except Unpaired as reason:
                        entry.relation = "unpaired"
                        unpaired[str(reason)][self.pivot.label(key)] = None
            if len(cells) == 1:  # the publications report the best epoch
                self.entries[key, "best"].published = self._published(cells[0], mismatches)
        self._remarks(mismatches, unpaired)

    @property
    def keys(self) -> list[Key]:
        """Of the entries, in order, means included."""
        return list(dict.fromkeys(key for key, _ in self.entries))

    def columns(self) -> list[Key]:
        """Column keys, means last; ``[()]`` where there are none."""
        table = self.pivot
        return sorted(
            {key[len(table.rows) :] for key in self.keys},
            key=lambda key: (MEAN in key, table.positions(table.columns, key)),
        )

    @property
    def settings(self) -> str:
        """The settings that all runs have in common."""
        parts = []
        for key in SETTINGS:
            values = {value_of(config, key) for config in self.configs}
            if len(values) == 1 and key not in self.pivot.axes:
                parts.append(self.pivot.phrase(key, values.pop()))
        counts = {at(run.result, "dataset", "test_episodes") for run in self.runs} - {None}
        if len(counts) == 1:
            parts.append(f"{counts.pop()} test episodes")
        return " · ".join(parts)

    def _footnotes(self, cell: Cell) -> tuple[int, ...]:
        where, before = self.pivot.label(cell.key), len(self.footnotes)
        for text, seeds in _by_reason(cell.failed).items():
            of_seeds = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}" if seeds else ""
            self.footnotes.append(f"{where}{of_seeds}: {text}")
        for run in cell.repeated:
            self.footnotes.append(f"{where}, seed {run.seed} ran twice; {run.name} is not shown.")
        return tuple(range(before + 1, len(self.footnotes) + 1))

    # ------------------------------------------------------------------ published values

    def _sources(self) -> list[Source]:
        """Sources with a value for this table; about another backbone only where none is about this one."""
        found = [
            source
            for source in self.pivot.spec.published
            if any(not self._differing(c, v.match) for c in self.pivot.cells.values() for v in source.values)
        ]
        backbones = {value_of(config, "backbone") for config in self.configs}
        about = [
            source
            for source in found
            if "backbone" not in source.conditions or canonical(source.conditions["backbone"]) in backbones
        ]
        return about or found

    def _published(
        self, cell: Cell, mismatches: Mapping[str, dict[str, None]]
    ) -> dict[str, tuple[PublishedValue, bool]]:
        """By source; what keeps one from being comparable is added to ``mismatches``."""
        found = {}
        for source in self.sources:
            value = next((v for v in source.values if not self._differing(cell, v.match)), None)
            if value is not None:
                differ = self._differing(cell, {**source.conditions, **value.match})
                if any(run.result.get("backbone_weights") == "random" for run in cell.runs.values()):
                    differ.append("ImageNet features, here random ones")
                mismatches[source.source].update(dict.fromkeys(differ))
                found[source.source] = (value, not differ)
        return found

    def _differing(self, cell: Cell, conditions: Overrides) -> list[str]:
        """Every condition that does not hold in ``cell``, as a phrase."""
        return [
            f"{axis_label(key)} {value}, here {self._value(cell, key)}"
            for key, value in conditions.items()
            if self._value(cell, key) != canonical(value)
        ]

    def _value(self, cell: Cell, key: str) -> Value:
        """The value of ``key`` in a cell, also in one without runs where all others agree."""
        if key in self.pivot.axes:
            return cell.key[self.pivot.axes.index(key)]
        configs = [run.config for run in (*cell.runs.values(), *cell.failed)] or self.configs
        values = {value_of(config, key) for config in configs}
        return values.pop() if len(values) == 1 else ABSENT

    # ------------------------------------------------------------------ remarks

    def _remarks(
        self, mismatches: Mapping[str, Iterable[str]], unpaired: Mapping[str, Iterable[str]]
    ) -> None:
        for source in self.sources:
            if differ := mismatches.get(source.source):
                self.notes.append(
                    f"† Not comparable with {source.source}: published with {'; '.join(differ)}. "
                    "The differences marked † say nothing about either."
                )
        axes = {axis for axis, values in self.pivot.values.items() if len(values) > 1}
        mixed = [axis for axis in self.pivot.axes if axis in axes and covered(axis, NOT_MIXED)]
        if mixed:
            names = " and ".join(map(axis_label, mixed))
            self.notes.append(f"Rows or columns differ in {names}: compare within, not across.")
        for reason, rows in unpaired.items():
            self.notes.append(f"No interval to the reference ({reason}): {', '.join(rows)}.")
        facts = {("device",): "devices", ("git_commit",): "commits", ("versions", "jittor"): "Jittors"}
        for fact, name in facts.items():
            found = {_short(value) for run in self.runs if run.completed and (value := at(run.result, *fact))}
            if len(found) > 1:
                self.notes.append(f"Runs come from different {name}: {', '.join(sorted(found))}.")
        self.notes += dict.fromkeys(f"{run.name}: {note}" for run in self.runs for note in run.notes)
        self.footnotes += [
            f"{run.name}: {_shortened(run.reason or 'no configuration recorded')}"
            for run in self.runs
            if not run.config
        ]


# ---------------------------------------------------------------------- a cell


def _score(cells: Sequence[Cell], seeds: Sequence[int], which: str) -> dict[str, Stat]:
    """By metric the statistics over ``seeds`` of the mean over ``cells``; nothing without seeds."""
    found = {}
    for metric in METRICS if seeds else ():
        scores = [[getattr(cell.runs[seed].scores[which], metric) for cell in cells] for seed in seeds]
        values = [100 * float(np.mean(of_seed)) for of_seed in scores]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found[metric] = Stat(float(np.mean(values)), sd, len(values))
    return found


def _differences(
    cells: Sequence[Cell], which: str, reference: Sequence[Cell], other: str
) -> dict[str, Interval]:
    """By metric ``cells`` at ``which`` minus ``reference`` at ``other``, points. Raises :class:`Unpaired`."""
    row, against = [_block(cell, which) for cell in cells], [_block(cell, other) for cell in reference]
    return {
        metric: Interval(100 * found.difference, 100 * found.low, 100 * found.high, found.seeds)
        for metric, found in zip(METRICS, compare(row, against))
    }


def _block(cell: Cell, which: str) -> Block:
    block = {seed: run.episodes[which] for seed, run in cell.runs.items() if which in run.episodes}
    if not block:
        raise Unpaired("no episodes.csv")
    return block


# ---------------------------------------------------------------------- words


def _noise(table: Pivot) -> str:
    """How much single runs of one function differ, in a sentence or two."""
    of_function: dict[str, dict[int, float]] = defaultdict(dict)
    rows: dict[str, dict[str, None]] = defaultdict(dict)
    for cell in table.cells.values():
        for seed, run in cell.runs.items():
            of_function[function_of(run)][seed] = 100 * run.scores["best"].miou
            rows[function_of(run)][table.label(cell.key)] = None
    sentences = []
    for function, names in rows.items():
        if len(names) > 1:
            scores = of_function[function].values()
            spread = spread_over_seeds([[*scores]])
            words = spread and (
                f"; from seed to seed its best mIoU spreads by sd {spread[0]:.2f} points "
                f"({min(scores):.2f} to {max(scores):.2f}, {len(scores)} seeds)"
            )
            sentences.append(f"{' and '.join(names)} compute the same function{words or ''}.")
    if pooled := spread_over_seeds([[*scores.values()] for scores in of_function.values()]):
        sd, degrees = pooled
        sentences.append(
            f"Pooled over all rows the sd over seeds is {sd:.2f} points of best mIoU ({degrees} degrees of freedom): "
            f"single runs of one configuration differ by up to {1.96 * 2**0.5 * sd:.1f} points in 95 of 100 pairs."
        )
    elif of_function:
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
