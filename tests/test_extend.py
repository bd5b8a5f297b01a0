"""``examples/extend`` through the real entry point, from another directory, as its README says."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.datasets import picture, save
from tests.hydra_app import REPO, run_process

CONF = REPO / "examples" / "extend" / "conf"
TINY = ("profile=tiny", "device=cpu", "data.image_size=32", "model.width=16", "backbone.weights=random")
TINY += ("train.epochs=1", "train.iterations_per_epoch=2", "evaluate.episodes=2")


def listed(root: Path) -> tuple[str, str]:
    """A small data set in the form of ``Listed``, and how a command names it."""
    rows = ["picture,mask,class"]
    for i in range(12):
        image, mask = picture(i)
        save(root / f"{i}.jpg", image)
        save(root / "masks" / f"{i}.png", mask * 255)
        rows.append(f"{i}.jpg,masks/{i}.png,{'abcd'[i % 4]}")
    (root / "pictures.csv").write_text("\n".join(rows), encoding="utf-8")
    return "data=listed", f"data.root={root}"


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_process(cwd, "--config-dir", str(CONF), *arguments, timeout=None, PYTHONPATH=str(REPO))


def test_every_option_composes(tmp_path: Path) -> None:
    for group, option in (
        ("backbone", "strided"),
        ("ablation", "two_convolutions"),
        ("ablation", "without_branch"),
        ("recipe/loss", "area"),
        ("recipe/schedule", "steps"),
        ("recipe/episodes", "uneven_light"),
        ("data", "listed"),
    ):
        shown = run(tmp_path, f"{group}={option}", "--cfg", "job")
        assert shown.returncode == 0, shown.stderr
        own = option if group != "recipe/loss" else "examples.extend.losses.Area"
        assert own in shown.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_backbone_a_schedule_and_a_data_set_train_evaluate_resume_and_predict(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    parts = ("backbone=strided", "recipe/schedule=steps", "recipe/episodes=uneven_light")
    mine = (*parts, "data.workers=1", *listed(tmp_path / "listed"))
    trained = run(tmp_path, *mine, *TINY, f"hydra.run.dir={run_dir}")
    assert trained.returncode == 0, trained.stderr
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["status"], result["config"]["backbone"]["name"]) == ("completed", "strided")
    assert result["dataset"]["name"] == "listed"
    assert result["config"]["recipe"]["schedule"]["_target_"] == "examples.extend.schedules.Steps"
    assert result["config"]["recipe"]["episodes"]["_target_"] == "examples.extend.episodes.UnevenLight"
    with (run_dir / "metrics.csv").open(encoding="utf-8") as rows:
        first, last = (float(row["lr"]) for row in csv.DictReader(rows))
    warmed_up, stepped_down = 0.0015 * 0.1, 0.0015 * 0.3 * 0.1**2
    assert (first, last) == pytest.approx((warmed_up, stepped_down))

    resumed = run(tmp_path, *mine, f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr

    evaluated = run(tmp_path, *mine, "task=evaluate", f"checkpoint={run_dir}", "device=cpu")
    assert evaluated.returncode == 0, evaluated.stderr

    for i in range(2):
        image, mask = picture(i)
        save(tmp_path / "support" / f"{i}.jpg", image)
        save(tmp_path / "support" / f"{i}.png", mask * 255)
        save(tmp_path / "query" / f"{i}.jpg", image)
    asked = ("support=support", "query=query", "device=cpu", f"hydra.run.dir={tmp_path / 'marked'}")
    predicted = run(tmp_path, *mine, "task=predict", f"checkpoint={run_dir}", *asked)
    assert predicted.returncode == 0, predicted.stderr
    assert list((tmp_path / "marked").rglob("*.png"))

    free = f"hydra.run.dir={tmp_path / 'free'}"
    compared = run(tmp_path, *mine, "task=predict", "method=prototype", *asked[:-1], free)
    assert compared.returncode == 0, compared.stderr
    assert list((tmp_path / "free").rglob("*.png"))

    plain = ("task=evaluate", f"checkpoint={run_dir}")
    refused = run_process(tmp_path, *plain, PYTHONPATH=str(REPO))
    assert refused.returncode == 2
    assert "names the class examples.extend." in refused.stderr


@pytest.mark.slow
def test_a_decoder_a_loss_term_and_a_row_train_and_are_tabulated(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    rows = "ablation=full,two_convolutions,without_branch"
    mine = ("backbone=strided", "recipe/loss=area", *listed(tmp_path / "listed"))
    ended = run(tmp_path, "-m", rows, *mine, *TINY, f"hydra.sweep.dir={sweep}")
    assert ended.returncode == 0, ended.stderr
    table = list(csv.DictReader((sweep / "table.csv").open(encoding="utf-8")))
    assert {row["ablation"] for row in table} == {"full", "two_convolutions", "without_branch"}
    shown = (sweep / "table.md").read_text(encoding="utf-8")
    assert "listed · fold 0 · 1-shot · strided convolutions" in shown
    assert "CPP + SA + two convolutions" in shown
