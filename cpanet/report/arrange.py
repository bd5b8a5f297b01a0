"""Runs into the rows and columns of a table: what varies becomes an axis, seeds never do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cpanet.errors import UserError
from cpanet.report import layout as layouts
from cpanet.report.collect import Run
from cpanet.report.fingerprint import covered, flatten
from cpanet.report.layout import Layout, Variant
from cpanet.report.values import ABSENT, ALIASES, Key, Value, canonical, matches, value_of

VARIANT = "variant"
MOST_COLUMNS = 8
SETTING = (
    "fold",
    "shot",
)  # a task's setting rather than a choice of the method: columns, where there are other rows
OWN = (
    *SETTING,
    "data",
    "profile",
    "evaluate",
    "device",
)  # a row's reference has the row's own value of these
PREFERRED = (
    "data", "profile", "protocol", "recipe", "backbone", "ablation", "loss.k", "fold", "shot",
    "data.image_size", "model.width", "train.epochs", "recipe.optimizer", "recipe.schedule",
)  # fmt: skip
DEFAULT_REFERENCE = {"ablation": "full", "loss.k": 0.4}
NO_AXIS = ("seed", "log", "checkpoint", "data.workers", "data.root")


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


@dataclass
class Arrangement:
    """Cells by key; a key holds a value for every axis, in the axes' order."""

    layout: Layout
    axes: list[str]
    values: dict[str, list[Value]]
    rows: list[str]
    columns: list[str]
    mean_over: str | None
    cells: dict[Key, Cell]
    reference: dict[str, Value]
    unplaced: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def reference_key(self, key: Key) -> Key:
        """The cell that ``key`` is compared with."""
        return tuple(self.reference.get(axis, value) for axis, value in zip(self.axes, key))

    def part(self, key: Key, axes: Sequence[str]) -> Key:
        """The values of ``axes`` in ``key``."""
        return tuple(key[self.axes.index(axis)] for axis in axes)

    def row_keys(self) -> list[Key]:
        """Keys of the table's rows, in order."""
        return list(dict.fromkeys(self.part(key, self.rows) for key in self.cells))

    def column_keys(self) -> list[Key]:
        """Keys of the table's columns; ``[()]`` where there are none."""
        found = {self.part(key, self.columns) for key in self.cells}
        return sorted(found, key=lambda key: [self.values[a].index(v) for a, v in zip(self.columns, key)])

    def at(self, row: Key, column: Key) -> Cell | None:
        """The cell in a row and a column."""
        where = dict(zip([*self.rows, *self.columns], [*row, *column]))
        return self.cells.get(tuple(where[axis] for axis in self.axes))


def arrange(runs: Sequence[Run], directories: Sequence[Path]) -> Arrangement:
    """Place ``runs``, found in the sweeps' ``directories``; cells that are still to come are there too, empty."""
    notes: list[str] = []
    layout = _layout(directories, notes)
    declared = {directory: _declared(directory, notes) for directory in directories}
    usable = [run for run in runs if run.config]
    axes = _axes(usable, layout, declared)
    places = {id(run): _key(run, axes, layout) for run in usable}
    cells: dict[Key, Cell] = {}
    for directory in directories:
        mine = [run for run in usable if run.sweep == directory]
        for key in _expected(mine, places, axes, declared[directory]):
            cell = cells.setdefault(key, Cell(key))
            cell.seeds |= set(_seeds(mine, declared[directory]))
    for run in usable:
        _place(cells.setdefault(places[id(run)], Cell(places[id(run)])), run)
    values = _values(axes, cells, layout, declared.values())
    rows, columns = _rows_and_columns(axes, values, layout)
    axes, cells = _by_rows(axes, [*rows, *columns], cells)
    ordered = sorted(cells, key=lambda key: [values[axis].index(v) for axis, v in zip(axes, key)])
    arrangement = Arrangement(
        layout,
        axes,
        values,
        rows,
        columns,
        _mean_over(columns, values, layout),
        {key: cells[key] for key in ordered},
        {},
        [run for run in runs if not run.config],
        notes,
    )
    arrangement.reference = _reference(arrangement)
    return arrangement


# ---------------------------------------------------------------------- what was asked for


def _layout(directories: Iterable[Path], notes: list[str]) -> Layout:
    """The layout of the sweeps; an empty one for sweeps without, or whose layouts differ."""
    found = []
    for directory in directories:
        try:
            layout = layouts.read(directory)
        except UserError as error:
            notes.append(f"{error} The table is laid out by what varies.")
            layout = None
        found.append(layout)
    first = found[0] if found else None
    if first is None or any(other is None or other.name != first.name for other in found[1:]):
        title = " and ".join(directory.name for directory in directories)
        return Layout(name="multirun", title=title or "runs")
    return first


def _declared(directory: Path, notes: list[str]) -> dict[str, list[Value]]:
    """Axes and their values as a sweep's command asked for them, ``seed`` among them."""
    axes: dict[str, list[Value]] = {}
    try:
        layout = layouts.read(directory)
    except UserError:
        layout = None
    if layout is not None:
        axes = {ALIASES.get(k, k): [canonical(v) for v in values] for k, values in layout.axes.items()}
        if layout.variants:
            axes = {VARIANT: [variant.label for variant in layout.variants], **axes}
        if layout.seeds:
            axes["seed"] = [canonical(seed) for seed in layout.seeds]
        return axes
    return _typed_axes(directory)


def _typed_axes(directory: Path) -> dict[str, list[Value]]:
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
        ALIASES.get(o.key_or_group, o.key_or_group): [canonical(str(v)) for v in o.sweep_string_iterator()]
        for o in overrides
        if o.is_discrete_sweep()
    }


def _seeds(runs: Iterable[Run], declared: Mapping[str, list[Value]]) -> list[int]:
    if "seed" in declared:
        return [int(seed) for seed in declared["seed"] if isinstance(seed, int)]
    return sorted({run.seed for run in runs if run.seed is not None})


def _expected(
    runs: Sequence[Run], places: Mapping[int, Key], axes: Sequence[str], declared: Mapping[str, list[Value]]
) -> list[Key]:
    """Every combination of the declared axes, with the combinations of the others that occur."""
    known = [axis for axis in axes if axis in declared]
    others = [axis for axis in axes if axis not in declared]
    seen = dict.fromkeys(
        tuple(places[id(run)][axes.index(axis)] for axis in others) for run in runs if id(run) in places
    )
    if not runs and not others:
        seen = {(): None}
    if not known:
        return []
    keys = []
    for combination in itertools.product(*(_settled(declared[axis], bool(runs)) for axis in known)):
        for rest in seen:
            where = dict(zip([*known, *others], [*combination, *rest]))
            keys.append(tuple(where[axis] for axis in axes))
    return keys


def _settled(values: Sequence[Value], known: bool) -> list[Value]:
    """Without ``auto``, which runs record as what it became."""
    return [value for value in values if value != "auto"] if known else list(values)


# ---------------------------------------------------------------------- axes


def _axes(runs: Sequence[Run], layout: Layout, declared: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """Axes of the layout, then those typed that vary, then whatever else tells runs apart."""
    axes = [ALIASES.get(axis, axis) for axis in (*layout.rows, *layout.columns)]
    axes += [axis for of_sweep in declared.values() for axis in of_sweep]
    axes = [axis for axis in dict.fromkeys(axes) if axis != "seed"]
    leaves = {id(run): _leaves(run, runs) for run in runs}
    typed = dict.fromkeys(_typed_key(text) for run in runs for text in run.overrides)
    candidates = [*typed, *PREFERRED, *sorted({key for values in leaves.values() for key in values})]
    for candidate in candidates:
        key = ALIASES.get(candidate, candidate)
        if key not in axes and not covered(key, NO_AXIS) and _tells_apart(key, axes, runs, layout, leaves):
            axes.append(key)
    return axes


def _tells_apart(
    key: str,
    axes: Sequence[str],
    runs: Sequence[Run],
    layout: Layout,
    leaves: Mapping[int, Mapping[str, Any]],
) -> bool:
    """Whether runs that ``axes`` put in one cell differ in ``key``."""
    seen: dict[Key, Value] = {}
    for run in runs:
        value = canonical(leaves[id(run)][key]) if key in leaves[id(run)] else value_of(run.config, key)
        if value == ABSENT and not run.completed:
            continue  # a configuration that failed may be incomplete
        if seen.setdefault(_key(run, axes, layout), value) != value:
            return True
    return False


def _leaves(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that must be equal within a cell: the configuration, the data and the backbone's weights as found."""
    values = {k: v for k, v in flatten(run.config).items() if not covered(k, NO_AXIS)}
    for key, path in FOUND.items():
        values[key] = _found(run, path) or next(
            (_found(r, path) for r in runs if _found(r, path) and _alike(r, run, key)), None
        )
    return values


# what a run found, and the key of the configuration that led to it
FOUND = {"data.fingerprint": ("dataset", "fingerprint"), "backbone.weights_used": ("backbone_weights",)}


def _found(run: Run, path: tuple[str, ...]) -> str | None:
    value = run.fact(*path)
    return str(value)[:24] if value else None


def _alike(one: Run, other: Run, key: str) -> bool:
    """Whether two runs asked for the same data, or the same backbone."""
    section = key.split(".")[0]
    return one.config.get(section) == other.config.get(section)


def _key(run: Run, axes: Sequence[str], layout: Layout) -> Key:
    values: list[Value] = []
    for axis in axes:
        if axis == VARIANT:
            values.append(_variant(run, layout.variants))
        elif axis in FOUND:
            values.append(_found(run, FOUND[axis]) or ABSENT)
        else:
            values.append(value_of(run.config, axis))
    return tuple(values)


def _variant(run: Run, variants: Sequence[Variant]) -> str:
    fitting = [variant for variant in variants if matches(run.config, variant.overrides)]
    return max(fitting, key=lambda variant: len(variant.overrides)).label if fitting else ABSENT


def _typed_key(override: str) -> str:
    return override.lstrip("+~").split("=")[0].split("@")[0]


def _place(cell: Cell, run: Run) -> None:
    seed = run.seed if run.seed is not None else 0
    cell.seeds.add(seed)
    if run.completed:
        if seed in cell.runs:
            cell.repeated.append(cell.runs[seed])
        cell.runs[seed] = run
    elif run.failed:
        cell.failed.append(run)


# ---------------------------------------------------------------------- order and shape


def _values(
    axes: Sequence[str],
    cells: Iterable[Key],
    layout: Layout,
    declared: Iterable[Mapping[str, list[Value]]],
) -> dict[str, list[Value]]:
    """The values of each axis in the table's order: numbers by size, names as declared."""
    keys, declared = list(cells), list(declared)
    ordered = {}
    for i, axis in enumerate(axes):
        asked = [value for of_sweep in declared for value in of_sweep.get(axis, ())]
        present = {key[i] for key in keys}
        rest = sorted(present - set(asked), key=_order)
        found = [value for value in dict.fromkeys([*asked, *rest]) if value in present]
        numbers = not any(isinstance(value, str) for value in found)
        ordered[axis] = sorted(found, key=_order) if numbers else found
    return ordered


def _order(value: Value) -> tuple:
    number = value if isinstance(value, (int, float)) else 0
    return (isinstance(value, str), number, re.sub(r"\d+", lambda m: m[0].zfill(6), str(value)))


def _rows_and_columns(
    axes: Sequence[str], values: Mapping[str, Sequence[Value]], layout: Layout
) -> tuple[list[str], list[str]]:
    """Rows and columns as the layout says; else the setting, or the last of several axes, becomes columns."""
    if layout.rows or layout.columns:
        columns = [ALIASES.get(axis, axis) for axis in layout.columns]
        columns = columns or [a for a in SETTING if a in axes and a not in layout.rows and len(values[a]) > 1]
        return [axis for axis in axes if axis not in columns], columns
    several = [axis for axis in axes if len(values[axis]) > 1]
    setting = [axis for axis in several if axis in SETTING]
    if len(several) < 2:
        return list(axes), []
    columns = setting if len(setting) < len(several) else setting[:1]
    columns = columns or [several[-1]]
    size = 1
    for axis in columns:
        size *= len(values[axis])
    if size > MOST_COLUMNS:
        columns = []
    return [axis for axis in axes if axis not in columns], columns


def _by_rows(
    axes: Sequence[str], wanted: Sequence[str], cells: Mapping[Key, Cell]
) -> tuple[list[str], dict[Key, Cell]]:
    """Cells with their keys in the order of the axes ``wanted``."""
    moved = {}
    for cell in cells.values():
        cell.key = tuple(cell.key[axes.index(axis)] for axis in wanted)
        moved[cell.key] = cell
    return list(wanted), moved


def _mean_over(columns: Sequence[str], values: Mapping[str, Sequence[Value]], layout: Layout) -> str | None:
    wanted = layout.mean_over or "fold"
    return wanted if wanted is not None and wanted in columns and len(values[wanted]) > 1 else None


def _reference(arrangement: Arrangement) -> dict[str, Value]:
    """Axis → value of the reference row; of an axis that it leaves open, each row has its own or the first."""
    layout, axes, values = arrangement.layout, arrangement.axes, arrangement.values
    asked = {ALIASES.get(k, k): canonical(v) for k, v in (layout.reference or DEFAULT_REFERENCE).items()}
    reference: dict[str, Value] = {}
    for axis in axes:
        if axis in asked and asked[axis] in values[axis]:
            reference[axis] = asked[axis]
        elif values[axis] and not covered(axis, OWN) and axis not in FOUND:
            reference[axis] = values[axis][0]
            if axis in asked and len(values[axis]) > 1:
                arrangement.notes.append(
                    f"The usual reference ({axis} = {asked[axis]}) is not in this sweep; {values[axis][0]} stands for it."
                )
    return reference
