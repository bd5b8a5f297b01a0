"""Dotted keys of a configuration, and the nearest one to a misspelt one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"loss.k": 0.4, …}``: every value of a nested configuration by its dotted key, unresolved."""
    if isinstance(config, DictConfig):
        config = OmegaConf.to_container(config, resolve=False)
    found: dict[str, Any] = {}
    for key, value in config.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            found.update(leaves(value, dotted))
        else:
            found[dotted] = value
    return found


def unresolved(config: DictConfig) -> dict[str, Any]:
    """What is to be run, as plain data: without Hydra's node, and without how it is started."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    return {key: value for key, value in values.items() if key not in ("hydra", "resume")}


def resolved(config: DictConfig, **options: Any) -> dict[str, Any]:
    """The same with all references resolved; ``options`` are those of ``OmegaConf.to_container``."""
    found: Any = OmegaConf.to_container(OmegaConf.create(unresolved(config)), resolve=True, **options)
    return found


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be: by spelling, else by a shared last part."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    last = word.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    if same:
        return same[0]
    by_last = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)
    return by_last[close[0]] if close else None


def show(value: Any) -> str:
    """``value`` as it would be written in a configuration."""
    if isinstance(value, float):
        return str(value)  # nan and inf have no JSON
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
