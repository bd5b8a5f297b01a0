"""Values of a configuration by their keys, in one spelling."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Union

from cpanet.options import key_of

Value = Union[str, int, float]
Key = tuple[Value, ...]  # of a cell: a value for every axis

ABSENT = "–"
MEAN = "mean"
PATHS = ("backbone.weights", "checkpoint", "data.root")
NO_PATHS = ("auto", "random", "", ABSENT)


def at(found: Any, *path: str) -> Any:
    """What lies at ``path`` in nested mappings, None where there is nothing."""
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def value_of(config: Mapping[str, Any], key: str) -> Value:
    """The value of a group (its name) or a dotted key in a resolved configuration, in one spelling."""
    found: Any = config
    for part in key_of(key).replace("/", ".").split("."):
        if not isinstance(found, Mapping) or part not in found:
            return ABSENT
        found = found[part]
    if isinstance(found, Mapping):
        found = found.get("name") or str(found.get("_target_", ABSENT)).rpartition(".")[2]
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


def absolute(key: str, value: Any, folder: str) -> Any:
    """``value``; of a key that holds a path: as an absolute path, where it was typed relative to ``folder``."""
    if key not in PATHS or not isinstance(value, str) or not folder or value in NO_PATHS:
        return value
    return os.path.normpath(os.path.join(folder, os.path.expanduser(value.strip("'\""))))


def located(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """``config`` of a command typed in ``folder``, its paths made absolute, so that a file has one name."""
    for key in PATHS:
        *sections, name = key.split(".")
        part = at(config, *sections)
        if isinstance(part, dict) and name in part:
            part[name] = absolute(key, part[name], folder)
    return config


def short_paths(paths: Iterable[Value]) -> dict[Value, str]:
    """Paths by as many of their last parts as tell them apart: a table names no folder of a machine."""
    parts = {path: str(path).split("/") for path in paths}
    names: dict[Value, str] = {}
    for length in range(1, 1 + max(map(len, parts.values()))):
        names = {path: "/".join(part[-length:]) for path, part in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sort key: numbers in ``text`` by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts)]
