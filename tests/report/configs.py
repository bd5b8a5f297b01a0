"""Resolved configurations for report tests, composed as a run composes them."""

from __future__ import annotations

import copy
import functools
from typing import Any

from cpanet import options
from tests.hydra_app import compose


@functools.cache
def _base() -> dict[str, Any]:
    return compose("profile=tiny", "data=embedded").model_dump()


def resolved(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with dotted keys changed: ``resolved(**{"loss.k": 0.2})``."""
    values = copy.deepcopy(_base())
    for key, value in changes.items():
        *sections, last = key.split(".")
        part = values
        for section in sections:
            part = part[section]
        part[last] = value
    return values


def ablation(name: str) -> dict[str, Any]:
    """The ``ablation`` section of that name."""
    return options.read("ablation", name)
