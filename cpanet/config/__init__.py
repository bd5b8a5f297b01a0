"""Configuration: Hydra composes it (conf/), this package checks it and hands it on, typed."""

from __future__ import annotations

from cpanet.config.check import validate
from cpanet.config.launch import launch, register
from cpanet.config.schema import Config

__all__ = ["Config", "launch", "register", "validate"]
