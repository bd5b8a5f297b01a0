"""Installed package and source archive: the whole configuration goes with the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.hydra_app import CONF, REPO

FOLDERS = ("cpanet", "conf", "sweeps", "examples")
FILES = ("run.py", "setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "README.zh-CN.md")


def python(*words: str, **options: Any) -> str:
    """What a process of Python says."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with ``lib/`` as ``pip install .`` leaves it and the archive in ``dist/``."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(REPO / name, folder / name, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(REPO / name, folder)
    python("setup.py", "-q", "build", "--build-lib", "lib", "sdist", cwd=folder)
    return folder


def test_the_installed_package_has_the_whole_configuration(built: Path, tmp_path: Path) -> None:
    installed = built / "lib" / "cpanet" / "_conf"
    wanted = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")} | {
        Path("sweep", path.name) for path in (REPO / "sweeps").glob("*.yaml")
    }
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == wanted
    environment = {**os.environ, "PYTHONPATH": str(built / "lib")}
    shown = python("-m", "cpanet", "sweep=modules", "--cfg", "job", cwd=tmp_path, env=environment)
    assert "image_size: 64" in shown


def test_the_archive_has_what_a_checkout_has(built: Path) -> None:
    (archive,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {"run.py", "conf/config.yaml", "sweeps/modules.yaml", "examples/segment_onnx.py"} <= names
    assert {"cpanet/ops/winograd.cc", "cpanet/runtime/cuda/patches.yaml"} <= names
