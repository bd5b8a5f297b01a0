"""Composing the real configuration, and running the real entry point, from tests."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from cpanet import config
from cpanet.cli.check_config import check
from cpanet.cli.launch import register
from cpanet.tasks import train

REPO = Path(__file__).resolve().parent.parent
CONF = REPO / "conf"


def compose(*overrides: str) -> config.Config:
    """The checked configuration of ``python run.py <overrides>``."""
    return check(composed(*overrides))


def composed(*overrides: str) -> Any:
    """The same before it is checked, as Hydra hands it over."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", list(overrides))


def options(group: str) -> set[str]:
    """The options of a group."""
    return {path.stem for path in (CONF / group).glob("*.yaml")}


def run_recorded(cwd: Path, *arguments: str, experiment: Any = None) -> tuple[int, list[tuple[Any, Path]]]:
    """``python run.py <arguments>`` in this process and in ``cwd``, training replaced by a recorder.

    Returns the exit status and, for each job, its configuration and run directory.
    """
    jobs: list[tuple[Any, Path]] = []

    def record(checked: Any, run_dir: Path, resume: bool = False, **options: Any) -> float:
        jobs.append((checked, run_dir))
        return experiment(checked, run_dir) if experiment else 0.5

    module = types.ModuleType("cpanet.tasks.train")
    module.run = record  # type: ignore[attr-defined]
    module.preflight = train.preflight  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module  # this one alone is put back: what a run imports stays imported
    try:
        return run_here(cwd, *arguments), jobs
    finally:
        sys.modules[module.__name__] = train


def run_here(cwd: Path, *arguments: str) -> int:
    """``python run.py <arguments>`` in this process and in ``cwd``; returns the exit status."""
    back, terminate = Path.cwd(), signal.getsignal(signal.SIGTERM)
    os.chdir(cwd)
    try:
        with mock.patch.object(sys, "argv", [str(REPO / "run.py"), *arguments]):
            runpy.run_path(str(REPO / "run.py"), run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        os.chdir(back)
        signal.signal(signal.SIGTERM, terminate)
        GlobalHydra.instance().clear()
    raise AssertionError("run.py returned without an exit status")


def run_process(
    cwd: Path, *arguments: str, timeout: float | None = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python run.py <arguments>`` as a user types it, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(REPO / "run.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
