"""Hydra's composition errors in one sentence: what was typed, what is known, what is nearest."""

from __future__ import annotations

import contextlib
import shlex
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, OverrideParseException
from hydra.types import RunMode

from cpanet.cli.naming import quoted
from cpanet.cli.numbers import as_number
from cpanet.config.keys import leaves, nearest, show
from cpanet.console import program
from cpanet.errors import UserError


class CompositionError(UserError, ConfigCompositionException):
    """A command line that does not compose; Hydra's own class too, which its shell completion expects."""


def explain(error: Exception, overrides: list[str], loader: Any, config_name: str | None) -> CompositionError:
    """The error to raise in place of Hydra's ``error``: one line for every override that is at fault."""
    if isinstance(error, OverrideParseException):
        lines = [line for line in str(error).splitlines() if line.strip() and "Error parsing" not in line]
        reason = lines[0].strip().rstrip(".")
        key, _, value = (error.override or "").partition("=")
        literal = f"{key}={quoted(value)}" if value else "key=value"
        return CompositionError(
            f"cannot read {error.override!r}: {reason}. If it is a text, type: {shlex.quote(literal)}"
        )
    problems: list[str] = []
    with contextlib.suppress(Exception):  # an explanation must not fail where composition did
        known = _known_keys(loader, config_name, overrides)
        for override in OverridesParser.create().parse_overrides(overrides):
            problem = _problem(override, loader, known)
            if problem:
                problems.append(problem)
    return CompositionError("\n  ".join(problems) if problems else _hydras_words(error))


def _problem(override: Override, loader: Any, known: list[str]) -> str | None:
    """The mistake in one override by itself, or None."""
    key = override.key_or_group
    options = loader.get_group_options(key, ObjectType.CONFIG)
    groups = loader.get_group_options("", ObjectType.GROUP)
    if options:
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
        for value in values:
            problem = _option_problem(key, value, options)
            if problem:
                return problem
        return None
    if override.is_hydra_override() or override.is_add() or override.is_force_add():
        return None
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    if key in known or key in sections:
        return None
    likely = nearest(key, [*known, *groups])
    meant = f" Did you mean {likely!r}?" if likely else ""
    return f"unknown key {key!r}.{meant} See all groups and keys: {program()} --help"


def _option_problem(group: str, value: Any, options: list[str]) -> str | None:
    text = getattr(value, "text", value)  # quoted strings
    if isinstance(text, list):
        return f"{group} takes one option, not a list. To run several: -m {group}={','.join(map(str, text))}"
    if text in options:
        return None
    if as_number(text) is not None and all(as_number(option) is not None for option in options):
        return None  # a number for a group of numbers: its range is checked with the values
    likely = nearest(str(text), options)
    hint = f" Did you mean {likely!r}?" if likely else ""
    return f"{group} = {show(text)}: no such option.{hint} Options: {', '.join(options)}."


def _known_keys(loader: Any, config_name: str | None, overrides: list[str]) -> list[str]:
    """The keys of the task that was asked for, where there is such a task."""
    tasks = [f"task={option}" for option in loader.get_group_options("task", ObjectType.CONFIG)]
    chosen = [text for text in overrides if text in tasks][-1:]
    default = loader.load_configuration(config_name, chosen, RunMode.MULTIRUN)
    return [key for key in leaves(default) if not key.startswith("hydra.")]


def _hydras_words(error: Exception) -> str:
    """Hydra's message without its advice about its own flags."""
    parts = [str(error).strip()] + ([str(error.__cause__).strip()] if error.__cause__ else [])
    lines = [line.strip() for part in parts for line in part.splitlines() if line.strip()]
    drop = (
        "See https://",
        "Config search path",
        "Search path:",
        "full_key:",
        "object_type",
        "provider=",
        "Set the environment",
    )
    kept = [line for line in lines if not line.startswith(drop)]
    return "the configuration does not compose: " + (" ".join(kept) or type(error).__name__)
