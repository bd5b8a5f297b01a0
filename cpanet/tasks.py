"""``task=…``: the module that does it. Imported when it is asked for, so that ``--help`` and ``--cfg`` start nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

from cpanet.config.schema import Common

MODULES = {
    "train": "cpanet.experiment",
    "predict": "cpanet.predict.task",
    "evaluate": "cpanet.evaluate",
    "export": "cpanet.export.task",
    "explore": "cpanet.explore.task",
}


def run(config: Common, directory: Path, resume: bool = False, shared: bool = False) -> float:
    """Do ``config.task`` into ``directory``; returns the mIoU that came out, not-a-number where none does.

    ``shared``: other jobs of this process may need what this one computes; only training makes use of it.
    """
    options = {"shared": shared} if config.task == "train" else {}
    return float(importlib.import_module(MODULES[config.task]).run(config, directory, resume, **options))
