"""Runs into the rows and columns of a table: what varies becomes an axis, seeds never do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cpanet.config import equivalence
from cpanet.config.equivalence import covered
from cpanet.config.keys import leaves
from cpanet.errors import UserError
from cpanet.options import key_of
from cpanet.report import table_spec
from cpanet.report.runs import Run, started_in
from cpanet.report.table_spec import Overrides, TableSpec
from cpanet.report.values import ABSENT, MEAN, Key, Value, absolute, canonical, matches, value_of

VARIANT, METHOD, TRAINING_FREE = "variant", "method", "prototype"
MOST_COLUMNS = 8
# a task's setting rather than a choice of the method: columns, where there are other rows
SETTING = ("fold", "shot")
# a row's reference has the row's own value of these; a training-free one also of what its features come from
OWN = (*SETTING, "data", "profile", "evaluate", "device")
OWN_FEATURES = ("backbone", "model", "precision")
PREFERRED = (
    METHOD, "data", "profile", "protocol", "recipe", "backbone", "ablation", "loss.k", "fold", "shot",
    "data.image_size", "model.width", "train.epochs", "recipe.optimizer", "recipe.schedule",
)  # fmt: skip
DEFAULT_REFERENCE: Overrides = {"ablation": "full", "loss.k": 0.4}
NO_AXIS = ("seed", "log", "checkpoint", "data.workers", "data.root")
# keys that the training-free method lacks; the stage of the baseline is no choice of a trained row
NOT_TRAINED = ("ablation", "loss", "recipe", "train", "model", "evaluate.every")
# axes that a run finds out rather than is told, and where its result.json holds them
FOUND = {"data.fingerprint": ("dataset", "fingerprint"), "backbone.weights_used": ("backbone_weights",)}


@dataclass
class Cell:
    """All runs of one configuration: a completed run a seed, and what did not complete."""

    key: Key
    runs: dict[int, Run] = field(default_factory=dict)
    failed: list[Run] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    repeated: list[Run] = field(default_factory=list)

    @property
    def pending(self) -> list[int]:
        """Seeds that have neither finished nor failed."""
        return sorted(self.seeds - set(self.runs) - {run.seed for run in self.failed if run.seed is not None})

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


@dataclass
class Pivot:
    """Cells by key in the table's order; a key holds a value for every axis: those of the rows, then the columns'."""

    spec: TableSpec
    rows: list[str]
    columns: list[str]
    values: dict[str, list[Value]]
    cells: dict[Key, Cell]
    mean_over: str | None
    reference: dict[str, Value]  # chooses the reference row; axes of OWN are each row's own
    unplaced: list[Run] = field(default_factory=list)
    labels: dict[str, dict[Value, str]] = field(default_factory=dict)  # of choices, as runs recorded them
    notes: list[str] = field(default_factory=list)

    @property
    def axes(self) -> list[str]:
        return [*self.rows, *self.columns]

    def row_keys(self) -> list[Key]:
        """Keys of the table's rows, in order."""
        return list(dict.fromkeys(key[: len(self.rows)] for key in self.cells))

    def groups(self) -> dict[Key, list[Cell]]:
        """Cells by themselves, and the cells that a mean is taken over, in the table's order."""
        if self.mean_over is None:
            return {key: [cell] for key, cell in self.cells.items()}
        position = self.axes.index(self.mean_over)
        groups: dict[Key, list[Cell]] = {}
        for _, members in itertools.groupby(self.cells.items(), lambda item: item[0][: len(self.rows)]):
            means: dict[Key, list[Cell]] = {}
            for key, cell in members:
                groups[key] = [cell]
                means.setdefault((*key[:position], MEAN, *key[position + 1 :]), []).append(cell)
            groups.update({key: cells for key, cells in means.items() if len(cells) > 1})
        return groups

    def reference_of(self, key: Key, keys: Iterable[Key]) -> Key | None:
        """Of ``keys`` the first that has the reference's values, and of the axes in OWN those of ``key``."""
        own = OWN + (OWN_FEATURES if self.reference.get(METHOD) == TRAINING_FREE else ())
        wanted = {
            i: self.reference.get(axis, key[i])
            for i, axis in enumerate(self.axes)
            if axis in self.reference or covered(axis, own) or axis in FOUND
        }
        return next((other for other in keys if all(other[i] == value for i, value in wanted.items())), None)


def function_of(run: Run) -> str:
    """Fingerprint of a run, its seed aside: by its configuration, its data and its backbone's weights."""
    return f"{equivalence.fingerprint(run.config, seed=False)} {[run.fact(*path) for path in FOUND.values()]}"


def pivot(runs: Sequence[Run], directories: Sequence[Path], reference: Overrides | None = None) -> Pivot:
    """Place ``runs``, found in the sweeps' ``directories``; cells that are still to come are there too, empty.

    ``reference``: the row to compare with, in place of the sweeps' own.
    """
    notes: list[str] = []
    specs = {directory: _spec(directory, notes) for directory in directories}
    spec = _common_spec(specs)
    if reference is not None:
        spec = spec.model_copy(update={"reference": reference})
    declared = {directory: _declared(directory, specs[directory]) for directory in directories}
    usable = [run for run in runs if run.config]
    frame = _frame(usable, spec, declared.values())
    axes = _axes(frame, usable, spec, declared.values())
    keys = list(frame[axes].itertuples(index=False, name=None)) if axes else [()] * len(usable)
    cells: dict[Key, Cell] = {}
    for directory in directories:
        mine = [(key, run) for key, run in zip(keys, usable) if run.sweep == directory]
        for key in _expected([key for key, _ in mine], axes, declared[directory]):
            seeds = declared[directory].get("seed", [run.seed for _, run in mine])
            cells.setdefault(key, Cell(key)).seeds.update(seed for seed in seeds if isinstance(seed, int))
    for key, run in zip(keys, usable):
        cells.setdefault(key, Cell(key)).add(run)
    values = _values(axes, cells, declared.values())
    rows, columns = _rows_and_columns(axes, values, spec)
    order = [axes.index(axis) for axis in (*rows, *columns)]
    for cell in cells.values():
        cell.key = tuple(cell.key[i] for i in order)
    ordered = sorted(
        cells.values(), key=lambda cell: [values[a].index(v) for a, v in zip([*rows, *columns], cell.key)]
    )
    mean_over: str | None = spec.mean_over or "fold"
    if mean_over not in columns or len(values[str(mean_over)]) < 2:
        mean_over = None
    return Pivot(
        spec,
        rows,
        columns,
        values,
        {cell.key: cell for cell in ordered},
        mean_over,
        _reference(spec, values, notes),
        [run for run in runs if not run.config],
        _labels(usable, [*axes, "ablation", "backbone", "data"]),
        notes,
    )


def _labels(runs: Sequence[Run], axes: Sequence[str]) -> dict[str, dict[Value, str]]:
    """Labels that runs give their choices, by axis and value."""
    sections = {axis: [run.config.get(axis) for run in runs] for axis in axes}
    return {
        axis: {
            canonical(section.get("name")): str(section["label"])
            for section in found
            if isinstance(section, Mapping) and section.get("label")
        }
        for axis, found in sections.items()
    }


# ---------------------------------------------------------------------- what was asked for


def _spec(directory: Path, notes: list[str]) -> TableSpec | None:
    try:
        return table_spec.read(directory)
    except UserError as error:
        notes.append(f"{error} The table is laid out by what varies.")
        return None


def _common_spec(specs: Mapping[Path, TableSpec | None]) -> TableSpec:
    """The table of the sweeps; an empty one for sweeps without, or with different ones."""
    first, *others = list(specs.values()) or [None]
    if first is not None and all(other is not None and other.name == first.name for other in others):
        return first
    return TableSpec(name="multirun", title=" and ".join(path.name for path in specs) or "runs")


def _declared(directory: Path, spec: TableSpec | None) -> dict[str, list[Value]]:
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
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        kept = yaml.safe_load((directory / "multirun.yaml").read_text(encoding="utf-8"))
        typed = [str(text) for text in kept["hydra"]["overrides"]["task"]]
        overrides = OverridesParser.create().parse_overrides(typed)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, RecursionError, HydraException):
        return {}
    return {
        o.key_or_group: [str(value) for value in o.sweep_string_iterator()]
        for o in overrides
        if o.is_discrete_sweep()
    }


def _expected(keys: Sequence[Key], axes: Sequence[str], declared: Mapping[str, list[Value]]) -> list[Key]:
    """Every combination of the declared axes, with the combinations of the others that occur in ``keys``."""
    known = [axis for axis in axes if axis in declared]
    others = [axis for axis in axes if axis not in declared]
    seen = dict.fromkeys(tuple(key[axes.index(axis)] for axis in others) for key in keys)
    if not keys and not others:
        seen = {(): None}
    if not known:
        return []
    # runs record auto as what it became
    asked = [[value for value in declared[axis] if value != "auto" or not keys] for axis in known]
    found = [
        dict(zip([*known, *others], [*combination, *rest]))
        for combination in itertools.product(*asked)
        for rest in seen
    ]
    if METHOD in axes:
        for where in found:
            where.update({axis: ABSENT for axis in axes if _blank(axis, where[METHOD])})
    return [tuple(where[axis] for axis in axes) for where in found]


# ---------------------------------------------------------------------- axes


def _frame(runs: Sequence[Run], spec: TableSpec, declared: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a run, a column for every key that may be an axis: typed ones first, then the usual ones, then all others."""
    typed = [text.lstrip("+~").split("=")[0].split("@")[0] for run in runs for text in run.overrides]
    wanted = [*spec.rows, *spec.columns, *(axis for axes in declared for axis in axes)]
    methods = [value_of(run.config, METHOD) for run in runs]
    mixed = len(set(methods)) > 1
    every = sorted({*FOUND, *(key for run in runs for key in leaves(run.config))})
    columns: dict[str, list[Any]] = {}
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
    section = key.split(".")[0]
    found = [str(value)[:24] if (value := run.fact(*FOUND[key])) else "" for run in runs]
    asked = [str(run.config.get(section)) for run in runs]
    known = {question: value for question, value in zip(asked, found) if value}
    return [value or known.get(question, ABSENT) for question, value in zip(asked, found)]


def _variant(run: Run, spec: TableSpec) -> str:
    fitting = [variant for variant in spec.variants if matches(run.config, variant.overrides)]
    return max(fitting, key=lambda variant: len(variant.overrides)).label if fitting else ABSENT


def _axes(
    frame: pd.DataFrame, runs: Sequence[Run], spec: TableSpec, declared: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Axes of the table's specification, those typed that vary, then whatever else tells apart runs of one cell."""
    wanted = [*map(key_of, (*spec.rows, *spec.columns)), *(axis for axes in declared for axis in axes)]
    axes = [axis for axis in dict.fromkeys(wanted) if axis != "seed"]
    # a configuration that failed may be incomplete
    incomplete = pd.Series([not run.completed for run in runs], index=frame.index, dtype=bool)
    for key in frame.columns:
        if key in axes or covered(key, NO_AXIS):
            continue
        if len(set(frame[key])) == 1:
            continue
        column = frame[key].mask((frame[key] == ABSENT) & incomplete)
        if column.nunique() > 1:
            apart = column.groupby([frame[axis] for axis in axes], sort=False).nunique() > 1 if axes else None
            if apart is None or apart.any():  # runs that the axes so far put in one cell differ
                axes.append(key)
    return axes


# ---------------------------------------------------------------------- order and shape


def _values(
    axes: Sequence[str], keys: Iterable[Key], declared: Iterable[Mapping[str, list[Value]]]
) -> dict[str, list[Value]]:
    """The values of each axis in the table's order: numbers by size, names as declared."""
    keys, declared = list(keys), list(declared)
    ordered = {}
    for i, axis in enumerate(axes):
        asked = [value for of_sweep in declared for value in of_sweep.get(axis, ())]
        present = {key[i] for key in keys}
        found = [value for value in dict.fromkeys([*asked, *sorted(present, key=_order)]) if value in present]
        numbers = not any(isinstance(value, str) for value in found)
        ordered[axis] = sorted(found, key=_order) if numbers else found
    return ordered


def _order(value: Value) -> tuple:
    number = value if isinstance(value, (int, float)) else 0
    return (isinstance(value, str), number, re.sub(r"\d+", lambda m: m[0].zfill(6), str(value)))


def _rows_and_columns(
    axes: Sequence[str], values: Mapping[str, Sequence[Value]], spec: TableSpec
) -> tuple[list[str], list[str]]:
    """Rows and columns as specified; else the setting, or the last of several axes, becomes columns."""
    several = [axis for axis in axes if len(values[axis]) > 1]
    setting = [axis for axis in several if axis in SETTING]
    if spec.rows or spec.columns:
        columns = [key_of(axis) for axis in spec.columns] or [a for a in setting if a not in spec.rows]
    elif len(several) < 2:
        columns = []
    else:
        columns = (setting if len(setting) < len(several) else setting[:1]) or [several[-1]]
        size = 1
        for axis in columns:
            size *= len(values[axis])
        columns = columns if size <= MOST_COLUMNS else []
    return [axis for axis in axes if axis not in columns], columns


def _reference(spec: TableSpec, values: Mapping[str, Sequence[Value]], notes: list[str]) -> dict[str, Value]:
    """Axis → value of the reference row; of an axis that it leaves open and that is not a row's own, the first."""
    asked = {key_of(k): canonical(v) for k, v in (spec.reference or DEFAULT_REFERENCE).items()}
    free = asked.get(METHOD) == TRAINING_FREE
    own = OWN + (OWN_FEATURES if free else ())
    reference: dict[str, Value] = {}
    for axis, found in values.items():
        if axis in asked and asked[axis] in found:
            reference[axis] = asked[axis]
        elif found and not covered(axis, own) and axis not in FOUND and not (free and axis not in asked):
            reference[axis] = found[0]
            if axis in asked and len(found) > 1:
                notes.append(
                    f"The usual reference ({axis} = {asked[axis]}) is not in this sweep; {found[0]} stands for it."
                )
    return reference
