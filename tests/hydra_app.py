"""Composing the real configuration, and running the real entry point, from tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from cpanet import config

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose(*overrides: str) -> config.Config:
    """The checked configuration of ``python run.py <overrides>``."""
    return config.validate(composed(*overrides))


def composed(*overrides: str) -> Any:
    """The same before it is checked, as Hydra hands it over."""
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", list(overrides))


def options(group: str) -> set[str]:
    """The options of a group."""
    return {path.name[: -len(".yaml")] for path in (CONF / group).glob("*.yaml")}
