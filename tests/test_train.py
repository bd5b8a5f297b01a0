"""Whole runs on the embedded set, through the configuration and the experiment as ``run.py`` calls them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cpanet import engine
from cpanet.checkpoint.files import read_checkpoint
from cpanet.models import published_network
from cpanet.tasks.train import run
from tests.checkpoints import load_weights
from tests.datasets import save, write_folder
from tests.hydra_app import compose
from tests.sweep_runs import rows

TINY = ("profile=tiny", "data=embedded", "device=cpu", "backbone.weights=random", "data.workers=0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its configuration, its directory, and the best mIoU that it returned."""
    directory = tmp_path_factory.mktemp("run")
    config = compose(*TINY, "train.epochs=2", "fold=1", "seed=3")
    return config, directory, run(config, directory)


def test_a_run_directory_holds_what_is_promised(finished):
    _, directory, miou = finished
    names = ["result.json", "metrics.csv", "episodes.csv", "figures/curves.png", "figures/episodes.png"]
    for name in (*names, "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        assert (directory / name).stat().st_size > 0, name
    result = json.loads((directory / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["best"]["miou"] == miou
    for which in ("best", "last"):
        assert set(result[which]) == {"epoch", "miou", "fb_iou", "class_iou"}
        assert result[which]["miou"] == pytest.approx(np.mean(list(result[which]["class_iou"].values())))
    assert result["config"]["fold"] == result["dataset"]["fold"] == 1
    assert result["dataset"]["name"] == "embedded"
    assert len(result["dataset"]["fingerprint"]) == 64
    assert result["iterations"] == 4
    assert result["seed"] == 3
    assert result["wall_seconds"] > 0
    assert result["threads"] > 0
    assert result["peak_memory_mb"] > 0
    assert {"cpanet", "python", "jittor", "numpy"} <= result["versions"].keys()
    assert {"device", "git_commit", "untrained"} <= result.keys()


def test_scores_are_those_of_the_episodes(finished):
    _, directory, _ = finished
    result = json.loads((directory / "result.json").read_text())
    episodes = rows(directory / "episodes.csv")
    for which in ("best", "last"):
        chosen = [row for row in episodes if row["which"] == which]
        assert len(chosen) == result["dataset"]["test_episodes"]
        for name, iou in result[which]["class_iou"].items():
            mine = [row for row in chosen if row["class"] == name]
            inter, union = (sum(int(row[key]) for row in mine) for key in ("inter_fg", "union_fg"))
            assert iou == pytest.approx(inter / union if union else 0.0)
            assert all(row["query"].startswith(f"{name}/") for row in mine)
            assert not any(row["query"] in row["supports"] for row in mine)
    metrics = rows(directory / "metrics.csv")
    assert [int(row["epoch"]) for row in metrics] == [0, 1, 2]  # the untrained network first
    assert float(metrics[-1]["miou"]) == result["last"]["miou"]


def test_the_baseline_is_that_of_the_prototype_method_on_the_same_episodes(finished, tmp_path):
    config, directory, _ = finished
    result = json.loads((directory / "result.json").read_text())
    miou = run(config.model_copy(update={"method": "prototype"}), tmp_path)
    assert result["floor"]["miou"] == pytest.approx(miou)
    alone = json.loads((tmp_path / "result.json").read_text())
    assert (alone["status"], alone["iterations"]) == ("completed", 0)
    assert alone["best"]["miou"] == alone["last"]["miou"] == miou
    assert alone["last"]["fb_iou"] > 0
    assert len(rows(tmp_path / "episodes.csv")) == 2 * alone["dataset"]["test_episodes"]

    def counts(path, which):
        keys = ("query", "supports", "inter_fg", "union_fg", "inter_bg", "union_bg")
        return [[row[key] for key in keys] for row in rows(path / "episodes.csv") if row["which"] == which]

    assert counts(directory, "floor") == counts(tmp_path, "last")


def test_the_best_checkpoint_is_a_model(finished):
    config, directory, _ = finished
    model = published_network(config.backbone.name, width=config.model.width, seed=99)
    load_weights(model, directory / "checkpoints" / "best.safetensors")
    _, description = read_checkpoint(directory / "checkpoints" / "best.safetensors")
    assert description["config"]["seed"] == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_iteration(tmp_path):
    config = compose(*TINY, "recipe=paper", "recipe.optimizer.lr=1e30", "train.iterations_per_epoch=8")
    with pytest.raises(engine.Diverged, match=r"the (loss|gradient) is .* at iteration \d+"):
        run(config, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "diverged"
    assert "iteration" in result["reason"]


def test_a_picture_whose_mask_is_lost_is_named(tmp_path, capsys):
    root = write_folder(tmp_path / "data")
    spot = np.zeros((400, 400), np.uint8)
    spot[7, 7] = 255
    save(root / "a" / "Images" / "a_2.jpg", np.full((400, 400, 3), 90, np.uint8))
    save(root / "a" / "GT" / "a_2.png", spot)
    tiny = [word for word in TINY if word != "data=embedded"]
    folder = ("data=folder", f"data.root={root}")
    run(compose(*tiny, *folder, "method=prototype", "log.overlays=0"), tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "a/Images/a_2.jpg has no defect pixel left at 32 pixels; as a support it shows nothing" in said
    assert said.count("no defect pixel left") == 1
