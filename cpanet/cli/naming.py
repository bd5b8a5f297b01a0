"""Names of run directories: what was overridden, fit for a file system."""

from __future__ import annotations

import glob
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType

from cpanet.errors import UserError

PATHS = ("checkpoint", "support", "query", "clean")  # named by their last part
LONGEST = 120  # characters; file systems allow 255 bytes, and a suffix may follow


def run_name(
    overrides: Iterable[str], exclude: Iterable[str] = (), sweep: Mapping[str, Any] | None = None
) -> str:
    """``["backbone=resnet50", "fold=0,1"]`` → ``backbone=resnet50,fold=0+1``; ``defaults`` without overrides.

    Keys in ``exclude`` are left out; ``sweep`` holds the axes of a sweeper that has its own, which go without saying
    where a sweep's file is named. Values that lose
    something on the way to a file name, and names longer than LONGEST, end in a hash, so that different runs
    have different names.
    """
    overrides = list(overrides)
    parser, left_out = OverridesParser.create(), set(exclude)
    items: dict[str, str] = {}
    named = any(text.startswith("sweep=") for text in overrides)
    axes = [] if named else [f"{key}={values}" for key, values in (sweep or {}).items()]
    for override in parser.parse_overrides([*axes, *overrides]):
        if override.key_or_group not in left_out and not override.is_hydra_override():
            items.pop(override.key_or_group, None)  # typed twice: the last one counts, at its own place
            items[override.key_or_group] = _item(override)
    name = ",".join(items.values()) or "defaults"
    if len(name.encode()) <= LONGEST:
        return name
    return name.encode()[: LONGEST - 9].decode(errors="ignore").rstrip(",=+") + "-" + _hash(name, 8)


def quoted(text: str) -> str:
    """``text`` as a quoted string in Hydra's grammar, where a backslash counts before a quote alone."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), text) + "'"


def create_run_dir(path: Path) -> Path:
    """Create ``path``, or the first free one of ``path_2``, ``path_3``, …, and return it.

    Creating is the test, so that two processes never get the same directory. Raises UserError where nothing
    can be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
    except OSError as error:
        raise UserError(
            f"cannot create the run directory {path}: {error.strerror}. Free it, or start elsewhere."
        ) from error
    raise AssertionError("unreachable")


def make_run_dir(path: Path) -> None:
    """Create the directory that was asked for, or take the one that is there. Raises UserError where neither can be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file of that name is there" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"{path} cannot be the directory of a run: {reason}. Give another one.") from error


def latest(path: Path) -> Path | None:
    """The directory that :func:`create_run_dir` made last for ``path``; None where it made none."""
    numbered = {1: path} if path.is_dir() else {}
    for candidate in path.parent.glob(f"{glob.escape(path.name)}_*"):
        number = candidate.name[len(path.name) + 1 :]
        if number.isdecimal() and candidate.is_dir():
            numbered[int(number)] = candidate
    return numbered[max(numbered)] if numbered else None


def _item(override: Override) -> str:
    key = override.get_key_element().lstrip("+")
    if override.is_delete():
        return key
    if override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        value = "+".join(str(part).strip("'\"") for part in override.sweep_string_iterator())
    else:
        value = override.get_value_string() if override.is_sweep_override() else _plain(override)
    if key in PATHS:
        value = value.rstrip("/").rpartition("/")[2]
    safe = re.sub(r"[^\w.=+~@-]+", "-", value)
    return (
        f"{key}={safe}"
        if safe == value
        else f"{key}={safe.strip('-')[-40:]}-{_hash(value, 6)}".replace("=-", "=")
    )


def _plain(override: Override) -> str:
    value = override.value()
    return value if isinstance(value, str) else override.get_value_element_as_str()


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
