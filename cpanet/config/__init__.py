"""The configuration that a run is given: its keys, what each may be, and what it computes.

Hydra composes it (conf/, cpanet/cli); this package checks it and hands it on, typed.
"""

from __future__ import annotations

from cpanet.config.check import validate
from cpanet.config.schema import Config

__all__ = ["Config", "validate"]
