"""The environment of processes that others start for us."""

from __future__ import annotations

import os
from pathlib import Path


def export_source_folder() -> None:
    """Put the folder of this package on ``PYTHONPATH``: a scheduler's processes start in folders of their own."""
    folder = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH", "")
    if folder not in before.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))
