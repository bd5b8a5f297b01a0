"""Small checkpoints and folders of pictures for tests of what uses them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from cpanet.data.synthetic import ensure
from tests.hydra_app import compose
from tests.sweep_runs import TINY


@functools.cache
def trained_run(*overrides: str) -> Path:
    """A run directory of a network trained for a moment on the embedded set; made once in a process."""
    from cpanet.tasks.train import run

    directory = Path(tempfile.mkdtemp(prefix="cpanet-run-"))
    run(compose(*TINY, *overrides), directory)
    return directory


def embedded_class(name: str = "Steel_Sc") -> Path:
    """A class folder of the embedded set, with ``Images/`` and ``GT/``."""
    return ensure() / name
