"""Axes of a sweep: those its file declares, and those the command line puts in their place or beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Union

from hydra.core.override_parser.types import Override, QuotedString

from cpanet.errors import UserError
from cpanet.report import table_spec
from cpanet.report.table_spec import TableSpec

Scalar = Union[bool, int, float, str, None]
Values = list[Scalar]
NOT_AXES = ("sweep", "resume")
FULL_MODEL: dict[str, Scalar] = {"ablation": "full", "loss.k": 0.4, "loss_k": 0.4, "protocol": "corrected"}


def read_declaration(declared: Any) -> TableSpec | None:
    """The content of a file of ``sweeps/``, None where none was asked for."""
    return table_spec.parse(declared, f"sweeps/{declared.get('name', '')}.yaml") if declared else None


def declared_axes(
    declaration: TableSpec, typed: Sequence[Override], key_of: Callable[[str], str]
) -> dict[str, Values]:
    """The declaration's axes, seeds last, that the command line does not set.

    ``key_of`` gives the key that a group of numbers sets (``loss_k`` → ``loss.k``): an axis is set by either name.
    """
    set_there = {key_of(override.key_or_group) for override in typed}
    axes: dict[str, Values] = dict(declaration.axes)
    if declaration.seeds:
        axes["seed"] = list(declaration.seeds)
    return {key: values for key, values in axes.items() if key_of(key) not in set_there}


def as_sweep(values: Sequence[Scalar]) -> str:
    """Values in Hydra's grammar: ``[0, 0.2]`` → ``0,0.2``."""
    words = {True: "true", False: "false", None: "null"}
    return ",".join(words[v] if v is None or isinstance(v, bool) else str(v) for v in values)


def table_of(
    declaration: TableSpec | None, typed: Sequence[Override], key_of: Callable[[str], str]
) -> TableSpec:
    """The table of this command, as it was declared or by what varies.

    Of a declared table the axes hold the values that were asked for; what varies beside them becomes columns.
    Without a declaration the last key that varies becomes the columns and all others rows (``fold`` always columns).
    """
    given = {o.key_or_group: _values(o) for o in typed if o.key_or_group not in NOT_AXES}
    varying = {o.key_or_group for o in typed if o.is_sweep_override()} & given.keys()
    seeds = _seeds(given.pop("seed", None))
    varying.discard("seed")
    if declaration is None:
        return _by_what_varies({key: values for key, values in given.items() if key in varying}, seeds)
    by_key = {key_of(key): values for key, values in given.items()}
    axes = {key: by_key.get(key_of(key), values) for key, values in declaration.axes.items()}
    known = {key_of(key) for key in axes}
    beside = {key: given[key] for key in given if key in varying and key_of(key) not in known}
    return declaration.model_copy(
        update={
            "axes": {**axes, **beside},
            "columns": [*declaration.columns, *beside],
            "seeds": declaration.seeds if seeds is None else seeds,
        }
    )


def _by_what_varies(axes: dict[str, Values], seeds: list[int] | None) -> TableSpec:
    keys = list(axes)
    columns = ["fold"] if "fold" in keys and len(keys) > 1 else keys[-1:] if len(keys) > 1 else []
    reference: dict[str, Scalar] = {
        key: FULL_MODEL[key] if FULL_MODEL.get(key) in values else values[0]
        for key, values in axes.items()
        if values
    }
    return TableSpec(
        name="multirun",
        title=" × ".join(keys) or "seed",
        axes=axes,
        seeds=seeds or [],
        rows=[key for key in keys if key not in columns],
        columns=columns,
        mean_over="fold" if columns == ["fold"] else None,
        reference=reference,
    )


def _seeds(values: Values | None) -> list[int] | None:
    if values is None:
        return None
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]


def _values(override: Override) -> Values:
    """Every value that an override gives its key; none where a sweeper draws them from an interval."""
    if not override.is_sweep_override():
        return [_plain(override.value())]
    return [_plain(value) for value in override.sweep_iterator()] if override.is_discrete_sweep() else []


def _plain(value: Any) -> Scalar:
    if isinstance(value, QuotedString):
        return value.text
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def refuse_swept(overrides: Sequence[Override]) -> None:
    """One table at a time."""
    for override in overrides:
        if override.key_or_group in NOT_AXES and override.is_sweep_override():
            raise UserError(f"{override.input_line}: one at a time. Start a command for each.")
