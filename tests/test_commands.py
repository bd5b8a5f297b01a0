"""The commands that people type, as typed, in processes of their own and from another directory; only smaller."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.hydra_app import run_process

SMALL = "profile=tiny data=embedded device=cpu backbone.weights=random data.workers=0 log.overlays=0"
COMMANDS = {
    "backbone=resnet50 fold=0": 1,
    "-m ablation=cpp,sa,ssa loss.k=0,0.2,0.4": 9,
    "-m fold=0,1,2 shot=1,5 loss_k=0.2,0.4": 12,
}


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("somewhere")


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[pytest.mark.slow] if c.startswith("-m") else []) for c in COMMANDS]
)
def test_run_as_typed(command, somewhere):
    before = set(somewhere.glob("outputs/*"))
    done = run_process(somewhere, *command.split(), *SMALL.split(), timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = set(somewhere.glob("outputs/*")) - before
    results = [json.loads(path.read_text()) for path in directory.rglob("result.json")]
    assert len(results) == COMMANDS[command]
    assert {result["status"] for result in results} <= {"completed", "duplicate"}
    if command.startswith("-m"):
        for name in ("table.md", "table.csv", "table.tex", "report.html"):
            assert (directory / name).stat().st_size > 0
    else:
        assert directory.name.startswith("backbone=resnet50,fold=0")


def test_tensorboard_shows_the_runs_under_readable_names(somewhere):
    if not list(somewhere.glob("outputs/*")):
        pytest.skip("no run above has ended")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = f"-m tensorboard.main --logdir outputs --port {port} --load_fast=false".split()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, *words], cwd=somewhere, **quiet)
    try:
        runs: list[str] = []
        deadline = time.monotonic() + 60
        while not runs and time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                    runs = json.loads(answer.read())
            except OSError:
                continue
        assert any(name.startswith("backbone=resnet50,fold=0") for name in runs), runs
    finally:
        server.kill()
        server.wait(10)
