"""docs/predict.md: its commands, one after the other, as a reader types them; only the training is smaller."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from cpanet.data.catalog import METAL8
from tests.datasets import write_folder
from tests.hydra_app import REPO
from tests.sweep_runs import rows

PAGE = (REPO / "docs" / "predict.md").read_text(encoding="utf-8")
SMALLER = (
    "profile=tiny backbone=vgg16 backbone.weights=random data.workers=0 log.overlays=0 "
    "train.epochs=1 train.iterations_per_epoch=2"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_from_top_to_bottom(tmp_path: Path) -> None:
    metal8 = write_folder(tmp_path / "data", METAL8.classes, 6)
    page, figures, here = (tmp_path / name for name in ("predict.md", "figures", "here"))
    page.write_text(PAGE, encoding="utf-8")
    figures.mkdir()
    here.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=here, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    again = [sys.executable, str(REPO / "docs" / "figures" / "again.py"), f"--train-with={SMALLER}"]
    places = [f"--page={page}", f"--figures={figures}", f"--folder={here}"]
    told = run(*again, *places, f"--metal8={metal8}", "--weights=random")
    assert "IoU with the 22 masks that lie beside the pictures" in told
    assert "IoU with the 3 masks that lie beside the pictures" in told
    assert "95 % interval" in told
    (directory,) = here.glob("outputs/task=predict,checkpoint=defaults*")
    for name in ("masks", "overlays", "probabilities"):
        assert len(list((directory / name).glob("*.png"))) == 25
    assert len(rows(directory / "predictions.csv")) == 25
    annotations = json.loads((directory / "annotations.json").read_text())
    assert [c["name"] for c in annotations["categories"]] == ["crack"]
    for name in ("predict.jpg", "episodes.jpg"):
        assert cv2.imread(str(figures / name)).shape[1] > 800
    new = page.read_text(encoding="utf-8")
    assert new != PAGE
    assert re.sub(r"[−\d.*]", "", new) == re.sub(r"[−\d.*]", "", PAGE)  # numbers differ, and nothing else
    iou = json.loads((directory / "result.json").read_text())["iou"]
    assert f"IoU of **{iou:.3f}**" in new

    (snippet,) = blocks("python")
    assert run(sys.executable, "-c", snippet).startswith("(200, 200) ")

    pytest.importorskip("onnxruntime", reason="pip install '.[export]'")
    install, *commands = blocks("bash")[-1].splitlines()
    assert install == "pip install -e '.[export]'"
    run("bash", "-ec", "\n".join(commands))
    assert len(list((here / "marked").glob("*.png"))) == 25
