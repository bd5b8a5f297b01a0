"""Runs into the rows and columns of a table: what varies becomes an axis, seeds never do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cpanet.config.equivalence import covered, fingerprint
from cpanet.config.keys import leaves
from cpanet.errors import UserError
from cpanet.options import key_of
from cpanet.report import table_spec
from cpanet.report.labels import LABELLED, METHOD, TRAINING_FREE, VARIANT, phrase, value_label
from cpanet.report.runs import Run, read_yaml, started_in
from cpanet.report.table_spec import Overrides, TableSpec
from cpanet.report.values import ABSENT, MEAN, Key, Value, absolute, at, canonical, natural, value_of

MOST_COLUMNS = 8
# a task's setting rather than a choice of the method: columns, where there are other rows
SETTING = ("fold", "shot")
# axes that a run finds out rather than is told, and where its result.json holds them
FOUND = {"data.fingerprint": ("dataset", "fingerprint"), "backbone.weights_used": ("backbone_weights",)}
# a row's reference has the row's own value of these; a training-free one also of what its features come from
OWN = (*SETTING, "data", "profile", "evaluate", "device", *FOUND)
OWN_FEATURES = ("backbone", "model", "precision")
PREFERRED = (
    METHOD, "data", "profile", "protocol", "recipe", "backbone", "ablation", "loss.k", "fold", "shot",
    "data.image_size", "model.width", "train.epochs", "recipe.optimizer", "recipe.schedule",
)  # fmt: skip
DEFAULT_REFERENCE: Overrides = {"ablation": "full", "loss.k": 0.4}
NO_AXIS = ("seed", "log", "checkpoint", "data.workers", "data.root", "data.label")
# keys that the training-free method lacks; the stage of the baseline is no choice of a trained row
NOT_TRAINED = ("ablation", "loss", "recipe", "train", "model", "evaluate.every")

Declared = Mapping[str, Sequence[Value]]  # axes and their values as a sweep's command asked for them


@dataclass
class Cell:
    """All runs of one configuration: a completed run a seed, and what did not complete."""

    key: Key
    runs: dict[int, Run] = field(default_factory=dict)
    failed: list[Run] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    repeated: list[Run] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        """Whether a seed has neither finished nor failed."""
        return bool(self.seeds - set(self.runs) - {run.seed for run in self.failed})

    @property
    def function(self) -> str | None:
        """Fingerprint of the cell's runs, seeds aside; None where it is not known."""
        found = {function_of(run) for run in self.runs.values()}
        return found.pop() if len(found) == 1 else None

    def add(self, run: Run) -> None:
        """A run of this configuration; of two with one seed the later one counts."""
        seed = run.seed if run.seed is not None else 0
        self.seeds.add(seed)
        if run.completed:
            if seed in self.runs and run.duplicate_of is None:
                self.repeated.append(self.runs[seed])
            self.runs[seed] = run
        elif run.failed:
            self.failed.append(run)


def function_of(run: Run) -> str:
    """Fingerprint of a run, its seed aside: by its configuration, its data and its backbone's weights."""
    return f"{fingerprint(run.config, seed=False)} {[at(run.result, *path) for path in FOUND.values()]}"


class Pivot:
    """Runs, found in the sweeps' ``directories``, as cells by key in the table's order; those to come are there, empty.

    A key holds a value for every axis: those of the rows, then the columns'. ``reference``: the row to compare with, in
    place of the sweeps' own.
    """

    def __init__(
        self, runs: Sequence[Run], directories: Sequence[Path], reference: Overrides | None = None
    ) -> None:
        self.notes: list[str] = []
        specs = {directory: _spec(directory, self.notes) for directory in directories}
        self.spec = spec = _common_spec(specs)
        declared = {directory: _declared(directory, specs[directory]) for directory in directories}
        usable = [run for run in runs if run.config]
        asked = itertools.chain(spec.rows, spec.columns, *declared.values())
        wanted = list(dict.fromkeys(map(key_of, asked)))
        frame = _frame(usable, spec, wanted)
        axes = _axes(frame, usable, wanted)
        keys = list(frame[axes].itertuples(index=False, name=None)) if axes else [()] * len(usable)
        cells: dict[Key, Cell] = {}
        for directory in directories:
            mine = [(key, run) for key, run in zip(keys, usable) if run.sweep == directory]
            seeds = declared[directory].get("seed", [run.seed for _, run in mine])
            for key in _expected([key for key, _ in mine], axes, declared[directory]):
                cells.setdefault(key, Cell(key)).seeds.update(s for s in seeds if isinstance(s, int))
        for key, run in zip(keys, usable):
            cells.setdefault(key, Cell(key)).add(run)
        self.values = {
            axis: _in_order(axis, {key[i] for key in cells}, declared.values()) for i, axis in enumerate(axes)
        }
        self.rows, self.columns = _rows_and_columns(axes, self.values, spec)
        for cell in cells.values():
            cell.key = tuple(cell.key[axes.index(axis)] for axis in self.axes)
        ordered = sorted(cells.values(), key=lambda cell: self.positions(self.axes, cell.key))
        self.cells = {cell.key: cell for cell in ordered}
        mean_over = spec.mean_over or "fold"
        self.mean_over = mean_over if mean_over in self.columns and len(self.values[mean_over]) > 1 else None
        # chooses the reference row; axes of OWN are each row's own
        self.reference = _reference(reference or spec.reference, self.values, self.notes)
        # of choices, as runs recorded them
        self.labels = {axis: _labels(run.config.get(axis) for run in usable) for axis in LABELLED}

    @property
    def axes(self) -> list[str]:
        return [*self.rows, *self.columns]

    def positions(self, axes: Sequence[str], key: Key) -> list[int]:
        """Of the values of ``axes``, each in its axis; a mean is last."""
        return [[*self.values[axis], MEAN].index(value) for axis, value in zip(axes, key)]

    def label_of(self, axis: str, value: Value) -> str:
        """A value by itself, below its axis."""
        return value_label(axis, value, self.values.get(axis, ()), self.labels.get(axis, {}))

    def phrase(self, axis: str, value: Value) -> str:
        """A value that says what it is a value of."""
        return phrase(axis, value, self.label_of(axis, value))

    def label(self, key: Key) -> str:
        """A cell in words: the values of the axes that vary; all of them where nothing varies."""
        words = {axis: self.phrase(axis, value) for axis, value in zip(self.axes, key) if value != ABSENT}
        varying = [text for axis, text in words.items() if len(self.values[axis]) > 1]
        return " · ".join(varying or map(self.phrase, self.axes, key)) or "all runs"

    def groups(self) -> dict[Key, list[Cell]]:
        """Cells by themselves, and the cells that a mean is taken over, in the table's order."""
        groups: dict[Key, list[Cell]] = {}
        for _, members in itertools.groupby(self.cells.items(), lambda item: item[0][: len(self.rows)]):
            means: dict[Key, list[Cell]] = {}
            for key, cell in members:
                groups[key] = [cell]
                if self.mean_over is not None:
                    over = tuple(MEAN if axis == self.mean_over else v for axis, v in zip(self.axes, key))
                    means.setdefault(over, []).append(cell)
            groups.update({key: cells for key, cells in means.items() if len(cells) > 1})
        return groups

    def reference_of(self, key: Key, keys: Iterable[Key]) -> Key | None:
        """Of ``keys`` the first that has the reference's values, and of the axes in OWN those of ``key``."""
        own = _own(self.reference)
        wanted = {
            i: self.reference.get(axis, key[i])
            for i, axis in enumerate(self.axes)
            if axis in self.reference or covered(axis, own)
        }
        return next((other for other in keys if all(other[i] == value for i, value in wanted.items())), None)


def _labels(sections: Iterable[Any]) -> dict[Value, str]:
    """Labels that runs give a choice, by its name."""
    named = [section for section in sections if isinstance(section, Mapping) and section.get("label")]
    return {canonical(section.get("name")): str(section["label"]) for section in named}


# ---------------------------------------------------------------------- what was asked for


def _spec(directory: Path, notes: list[str]) -> TableSpec | None:
    try:
        return table_spec.read(directory)
    except UserError as error:
        notes.append(f"{error} The table is laid out by what varies.")
        return None


def _common_spec(specs: Mapping[Path, TableSpec | None]) -> TableSpec:
    """The table of the sweeps; an empty one for sweeps without, or with different ones."""
    first = next(iter(specs.values()), None)
    if first is not None and {spec and spec.name for spec in specs.values()} == {first.name}:
        return first
    return TableSpec(name="multirun", title=" and ".join(path.name for path in specs) or "runs")


def _declared(directory: Path, spec: TableSpec | None) -> Declared:
    """Axes and their values as a sweep's command asked for them, ``seed`` among them."""
    if spec is None:
        typed: Mapping[str, Iterable[Any]] = _typed_axes(directory)
    else:
        typed = {**spec.axes, **({"seed": spec.seeds} if spec.seeds else {})}
    folder = started_in(directory / "multirun.yaml")
    axes = {key_of(k): [canonical(absolute(key_of(k), v, folder)) for v in vs] for k, vs in typed.items()}
    if spec is not None and spec.variants:
        axes = {VARIANT: [variant.label for variant in spec.variants], **axes}
    return axes


def _typed_axes(directory: Path) -> dict[str, list[str]]:
    """Swept keys of ``multirun.yaml``, as Hydra keeps the command line."""
    typed = at(read_yaml(directory / "multirun.yaml"), "hydra", "overrides", "task")
    try:
        overrides = OverridesParser.create().parse_overrides([str(text) for text in typed or ()])
    except (TypeError, HydraException):
        return {}
    return {
        o.key_or_group: [str(value) for value in o.sweep_string_iterator()]
        for o in overrides
        if o.is_discrete_sweep()
    }


def _expected(keys: Sequence[Key], axes: Sequence[str], declared: Declared) -> list[Key]:
    """Every combination of the declared axes, with the combinations of the others that occur in ``keys``."""
    known = [axis for axis in axes if axis in declared]
    others = [axis for axis in axes if axis not in declared]
    if not known:
        return []
    seen = list(dict.fromkeys(tuple(key[axes.index(axis)] for axis in others) for key in keys))
    # runs record auto as what it became
    asked = [[value for value in declared[axis] if value != "auto" or not keys] for axis in known]
    found = [
        dict(zip([*known, *others], [*combination, *rest]))
        for combination in itertools.product(*asked)
        for rest in seen or [()] * (not others)
    ]
    if METHOD in axes:
        for where in found:
            where.update({axis: ABSENT for axis in axes if _blank(axis, where[METHOD])})
    return [tuple(where[axis] for axis in axes) for where in found]


# ---------------------------------------------------------------------- axes


def _frame(runs: Sequence[Run], spec: TableSpec, wanted: Sequence[str]) -> pd.DataFrame:
    """A row a run, a column for every key that may be an axis: typed ones first, then the usual ones, then all others."""
    typed = [text.lstrip("+~").split("=")[0].split("@")[0] for run in runs for text in run.overrides]
    methods = [value_of(run.config, METHOD) for run in runs]
    mixed = len(set(methods)) > 1
    every = sorted({*FOUND, *(key for run in runs for key in leaves(run.config))})
    columns: dict[str, list[Value]] = {}
    for key in dict.fromkeys(map(key_of, [METHOD, *typed, *PREFERRED, *every, *wanted])):
        if key == VARIANT:
            columns[key] = [_variant(run, spec) for run in runs]
        elif key in FOUND:
            columns[key] = _found(runs, key)
        else:
            columns[key] = [
                ABSENT if mixed and _blank(key, method) else value_of(run.config, key)
                for run, method in zip(runs, methods)
            ]
    return pd.DataFrame(columns, index=range(len(runs)), dtype=object)


def _blank(key: str, method: Value) -> bool:
    """Whether ``key`` says nothing about a row of this method, in a table with trained and training-free rows."""
    return covered(key, NOT_TRAINED if method == TRAINING_FREE else ("baseline",))


def _found(runs: Sequence[Run], key: str) -> list[Value]:
    """The value that each run found, or, where it ended before, another run with the same data or the same backbone."""
    found = [str(at(run.result, *FOUND[key]) or "")[:24] for run in runs]
    asked = [str(run.config.get(key.split(".")[0])) for run in runs]
    known = {question: value for question, value in zip(asked, found) if value}
    return [value or known.get(question, ABSENT) for question, value in zip(asked, found)]


def _variant(run: Run, spec: TableSpec) -> str:
    fitting = [
        variant
        for variant in spec.variants
        if all(value_of(run.config, key) == canonical(value) for key, value in variant.overrides.items())
    ]
    return max(fitting, key=lambda variant: len(variant.overrides)).label if fitting else ABSENT


def _axes(frame: pd.DataFrame, runs: Sequence[Run], wanted: Sequence[str]) -> list[str]:
    """The wanted axes, then whatever else tells apart runs of one cell."""
    axes = [axis for axis in wanted if axis != "seed"]
    # a configuration that failed may be incomplete
    incomplete = pd.Series([not run.completed for run in runs], index=frame.index, dtype=bool)
    for key in frame.columns:
        if key in axes or covered(key, NO_AXIS) or len(set(frame[key])) == 1:
            continue
        column = frame[key].mask((frame[key] == ABSENT) & incomplete)
        of_cells = column.groupby([frame[axis] for axis in axes] or (lambda _: 0), sort=False)
        if (of_cells.nunique() > 1).any():  # runs that the axes so far put in one cell differ
            axes.append(key)
    return axes


# ---------------------------------------------------------------------- order and shape


def _in_order(axis: str, present: set[Value], declared: Iterable[Declared]) -> list[Value]:
    """The values of an axis that are ``present`` in the table's order: numbers by size, names as declared."""
    asked = [value for of_sweep in declared for value in of_sweep.get(axis, ())]
    ordered = sorted(present, key=_order)
    if any(isinstance(value, str) for value in present):
        ordered = [value for value in dict.fromkeys([*asked, *ordered]) if value in present]
    return ordered


def _order(value: Value) -> tuple:
    return (1, 0, natural(value)) if isinstance(value, str) else (0, value, natural(str(value)))


def _rows_and_columns(
    axes: Sequence[str], values: Mapping[str, Sequence[Value]], spec: TableSpec
) -> tuple[list[str], list[str]]:
    """Rows and columns as specified; else the setting, or the last of several axes, becomes columns."""
    several = [axis for axis in axes if len(values[axis]) > 1]
    setting = [axis for axis in several if axis in SETTING]
    columns: list[str] = []
    if spec.rows or spec.columns:
        columns = [key_of(axis) for axis in spec.columns] or [a for a in setting if a not in spec.rows]
    elif len(several) > 1:
        columns = (setting if len(setting) < len(several) else setting[:1]) or [several[-1]]
        columns = columns if math.prod(len(values[axis]) for axis in columns) <= MOST_COLUMNS else []
    return [axis for axis in axes if axis not in columns], columns


def _own(reference: Mapping[str, Value]) -> tuple[str, ...]:
    return OWN + (OWN_FEATURES if reference.get(METHOD) == TRAINING_FREE else ())


def _reference(
    chosen: Overrides, values: Mapping[str, Sequence[Value]], notes: list[str]
) -> dict[str, Value]:
    """Axis → value of the reference row; of an axis that it leaves open and that is not a row's own, the first."""
    asked = {key_of(k): canonical(v) for k, v in (chosen or DEFAULT_REFERENCE).items()}
    free = asked.get(METHOD) == TRAINING_FREE
    reference: dict[str, Value] = {}
    for axis, found in values.items():
        if axis in asked and asked[axis] in found:
            reference[axis] = asked[axis]
        elif found and not covered(axis, _own(asked)) and not (free and axis not in asked):
            reference[axis] = found[0]
            if axis in asked and len(found) > 1:
                notes.append(
                    f"The usual reference ({axis} = {asked[axis]}) is not in this sweep; {found[0]} stands for it."
                )
    return reference
