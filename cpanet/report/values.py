"""Values of a configuration by their keys, in one spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

Value = Union[str, int, float]
Key = tuple[Value, ...]  # of a cell: a value for every axis

ABSENT = "–"
ALIASES = {"loss_k": "loss.k"}  # a group of numbers: the key that it sets


def value_of(config: Mapping[str, Any], key: str) -> Value:
    """The value of a group (its name) or a dotted key in a resolved configuration, in one spelling."""
    found: Any = config
    for part in ALIASES.get(key, key).replace("/", ".").split("."):
        if not isinstance(found, Mapping) or part not in found:
            return ABSENT
        found = found[part]
    if isinstance(found, Mapping):
        found = found.get("name", ABSENT)
    return canonical(found)


def canonical(value: Any) -> Value:
    """Equal values alike, however they were typed: ``"0.40"``, ``0.4``; ``True``, ``"true"``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.strip().strip("'\"")
        try:
            value = float(text)
        except ValueError:
            return text
    if isinstance(value, (int, float)):
        return int(value) if float(value).is_integer() else float(value)
    return str(value)


def matches(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    """Whether a resolved configuration has all these values."""
    return all(value_of(config, key) == canonical(value) for key, value in overrides.items())
