"""Gradio, kept to this machine: no usage statistics, no version check, and its files in a folder of our own."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from cpanet.errors import UserError


def import_gradio(folder: Path) -> Any:
    """Gradio, with its uploads and results below ``folder``. Raises UserError where it is not installed."""
    if sys.version_info < (3, 10):
        raise UserError("task=explore needs Python 3.10 or later, for Gradio 6. Everything else runs on 3.9.")
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="False",
        HF_HUB_OFFLINE="1",
    )
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise UserError(f"task=explore needs Gradio ({error}). Run: pip install -e '.[explore]'") from error
