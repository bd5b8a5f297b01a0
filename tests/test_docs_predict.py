"""docs/predict.md: its commands, one after the other, as a reader types them; only the training is smaller."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.hydra_app import REPO

PAGE = (REPO / "docs" / "predict.md").read_text(encoding="utf-8")
SMALLER = "profile=tiny backbone=vgg16 backbone.weights=random data.workers=0 log.overlays=0 hydra.run.dir=outputs/defaults"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_from_top_to_bottom(tmp_path: Path) -> None:
    for name in ("run.py", "examples"):
        (tmp_path / name).symlink_to(REPO / name)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PATH": f"{python.parent}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prepare, use, evaluate, _, export = blocks("bash")
    run("bash", "-ec", prepare)
    train, predict = use.splitlines()
    assert train == "python run.py"
    run("bash", "-ec", f"{train} {SMALLER}")
    assert "IoU with the 22 masks that lie beside the pictures" in run("bash", "-ec", predict)
    (directory,) = tmp_path.glob("outputs/task=predict*")
    for name in ("masks", "overlays", "probabilities"):
        assert len(list((directory / name).glob("*.png"))) == 25
    with (directory / "predictions.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 25
    annotations = json.loads((directory / "annotations.json").read_text())
    assert [c["name"] for c in annotations["categories"]] == ["crack"]
    run(str(python), str(REPO / "docs" / "figures" / "predict.py"), "annotated", str(directory), "figure.png")
    assert cv2.imread(str(tmp_path / "figure.png")).shape[1] > 800

    (snippet,) = blocks("python")
    assert run(str(python), "-c", snippet).startswith("(200, 200) ")
    assert "95 % interval" in run("bash", "-ec", evaluate)

    pytest.importorskip("onnxruntime", reason="pip install '.[export]'")
    install, *commands = export.splitlines()
    assert install == "pip install -e '.[export]'"
    run("bash", "-ec", "\n".join(commands))
    assert len(list((tmp_path / "marked").glob("*.png"))) == 25


def test_the_commands_on_real_pictures_compose() -> None:
    """Those of the page need hours of nobody's time, but pictures that cannot be in this repository."""
    from tests.hydra_app import composed

    for line in blocks("bash")[3].replace("\\\n", " ").splitlines():
        if line.startswith("python run.py"):
            words = [w for w in line.split()[2:] if not w.startswith(("checkpoint=", "support=", "query="))]
            composed(*words)
