"""Where tests find real data, real weights: a folder beside the repository, or ``CPANET_SHARED``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("CPANET_SHARED", REPO.parent / "shared"))


def shared(relative: str) -> Path:
    """Path of ``relative`` below the shared folder; skips the test, with the reason, where it is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{relative} is not on this machine (looked in {SHARED}; set CPANET_SHARED)")
    return path
