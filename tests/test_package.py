"""Installed package and source archive: the whole configuration goes with the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.hydra_app import CONF, REPO

PARTS = (
    "cpanet",
    "conf",
    "sweeps",
    "examples",
    "run.py",
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with ``lib/`` as ``pip install .`` leaves it and the archive in ``dist/``."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (REPO / part).is_dir():
            shutil.copytree(REPO / part, folder / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPO / part, folder)
    for page in REPO.glob("README*.md"):
        shutil.copy(page, folder)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", "lib", "sdist"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_installed_package_has_the_whole_configuration(built: Path, tmp_path: Path) -> None:
    installed = built / "lib" / "cpanet" / "_conf"
    wanted = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")} | {
        Path("sweep", path.name) for path in (REPO / "sweeps").glob("*.yaml")
    }
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == wanted
    shown = subprocess.run(
        [sys.executable, "-m", "cpanet", "sweep=modules", "--cfg", "job"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(built / "lib")},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert "image_size: 64" in shown.stdout


def test_the_archive_has_what_a_checkout_has(built: Path) -> None:
    (archive,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {"run.py", "conf/config.yaml", "sweeps/modules.yaml", "examples/segment_onnx.py"} <= names
    assert {"cpanet/ops/winograd.cc", "cpanet/runtime/cuda/patches.yaml"} <= names
