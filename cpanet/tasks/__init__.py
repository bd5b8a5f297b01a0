"""``task=…``: the module that does it. Imported when it is asked for, so that ``--help`` and ``--cfg`` start nothing.

Each has ``preflight(config)``, which raises UserError for what can be said before anything is written and starts no
Jittor for options of ``conf/``, and ``run(config, directory, resume)``, which returns the mIoU that came out.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from cpanet.config.schema import Common

USE_EPISODES = ("train", "evaluate")  # of a data set; the others work on pictures that are named


def preflight(config: Common) -> None:
    """Raises UserError for inputs of ``config.task`` that are not given, not there or damaged."""
    _module(config).preflight(config)


def run(config: Common, directory: Path, resume: bool = False, **of_jobs: Any) -> float:
    """Do ``config.task`` into ``directory``; returns the mIoU that came out, not-a-number where none does.

    ``of_jobs``, for tasks that run as jobs of a sweep: ``shared``: other jobs of this process may need what this one
    computes; ``threads``: CPU threads that it may use.
    """
    options = of_jobs if config.task in USE_EPISODES else {}
    return float(_module(config).run(config, directory, resume, **options))


def _module(config: Common) -> Any:
    return importlib.import_module(f"cpanet.tasks.{config.task}")
