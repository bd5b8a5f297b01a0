"""The configuration that a run directory recorded, and going on with it: ``python run.py resume=RUN_DIR``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpanet.config.equivalence import covered
from cpanet.config.keys import leaves, show
from cpanet.errors import UserError

# Keys that a run may change when it goes on: none of them changes a number.
FREE = ("data.root", "data.workers", "log", "checkpoint", "resume")


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``["seed = 1 (recorded: 0)", …]`` for what may not differ between two resolved configurations.

    A key that only one of them has came or went with a version of this project and is passed over.
    """
    before, after = leaves(recorded), leaves(now)
    return [
        f"{key} = {show(after[key])} (recorded: {show(value)})"
        for key, value in before.items()
        if key in after
        and not covered(key, FREE)
        and after[key] != value
        and not _same_file(key, value, after[key])
    ]


def _same_file(key: str, recorded: Any, now: Any) -> bool:
    """Whether ``now`` can be the file that an older version recorded by a relative path."""
    if key != "backbone.weights" or not isinstance(recorded, str) or not isinstance(now, str):
        return False
    relative = Path(recorded)
    return (
        "/" in now
        and not relative.is_absolute()
        and Path(now).parts[-len(relative.parts) :] == relative.parts
    )


def read_overrides(directory: Path) -> list[str]:
    """The overrides that began the run in ``directory``."""
    found = _read(directory, "overrides.yaml")
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise _not_a_run(directory, "overrides.yaml is no list of overrides")
    return [text for text in found if not text.lstrip("+~").startswith(("hydra.", "hydra/", "resume="))]


def read_config(directory: Path) -> dict[str, Any]:
    """The resolved configuration of the run in ``directory``, as plain data."""
    found = _read(directory, "config.yaml")
    if not isinstance(found, dict):
        raise _not_a_run(directory, "config.yaml is no configuration")
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(found), resolve=True)
    except OmegaConfBaseException as error:
        raise _not_a_run(directory, f"config.yaml: {str(error).splitlines()[0]}") from error
    return resolved


def _read(directory: Path, name: str) -> Any:
    path = directory / ".hydra" / name
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _not_a_run(directory, f"{path} cannot be read") from error
    for text in _texts(found):
        if (
            "${" in text and ":" in text[text.index("${") :]
        ):  # a reference to a key has none; a resolver runs code
            raise _not_a_run(directory, f"{path} asks for a resolver: {text}")
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def _not_a_run(directory: Path, why: str) -> UserError:
    return UserError(f"resume={directory}: not the directory of a run ({why}). Give one that run.py made.")
