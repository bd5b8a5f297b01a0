"""``python run.py task=evaluate``: checkpoints on any fold, with other shots, over several draws of the supports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpanet.checkpoint.names import to_released
from cpanet.checkpoint.weights import network_tensors
from tests.checkpoints import TINY, TorchTensor, named_as_torch, trained_run, write_zip  # noqa: F401 (a fixture)
from tests.hydra_app import composed, run_here
from tests.sweep_runs import only, rows

CPU = ("task=evaluate", "device=cpu", "evaluate.episodes=8")


def evaluate(cwd: Path, *arguments: str) -> tuple[dict, list[dict[str, str]]]:
    assert run_here(cwd, *CPU, *arguments) == 0
    directory = only(cwd / "outputs")
    return json.loads((directory / "result.json").read_text()), rows(directory / "episodes.csv")


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The run's own test, by the same episodes as its training ended with."""
    draws = ("evaluate.episode_seeds=[0,1,2]", "evaluate.episodes=4")
    return evaluate(tmp_path_factory.mktemp("again"), f"checkpoint={trained_run()}", *draws)


def test_the_checkpoint_scores_as_its_run_did(again):
    result, _ = again
    trained = json.loads((trained_run() / "result.json").read_text())
    (first,) = [draw for draw in result["draws"] if draw["episode_seed"] == 0]
    assert first["miou"] == pytest.approx(trained["best"]["miou"], abs=1e-6)
    assert first["fb_iou"] == pytest.approx(trained["best"]["fb_iou"], abs=1e-6)
    assert result["dataset"]["fingerprint"] == trained["dataset"]["fingerprint"]
    assert result["warnings"] == []


def test_mean_and_interval_are_those_of_the_draws(again):
    result, episodes = again
    draws = [draw["miou"] for draw in result["draws"]]
    assert len(draws) == 3
    assert result["miou"]["mean"] == pytest.approx(np.mean(draws))
    assert 0 <= result["miou"]["low"] <= result["miou"]["mean"] <= result["miou"]["high"] <= 1
    assert result["over_floor"]["mean"] == pytest.approx(result["miou"]["mean"] - result["floor"]["miou"])
    assert {row["which"] for row in episodes} == {
        f"{what} {seed}" for what in ("draw", "floor") for seed in (0, 1, 2)
    }
    supports = {seed: [r["supports"] for r in episodes if r["which"] == f"draw {seed}"] for seed in (0, 1)}
    assert supports[0] != supports[1]


def test_what_the_checkpoint_records_stands_in_for_what_is_not_typed():
    config = composed("task=evaluate", f"checkpoint={trained_run()}", "shot=5")
    assert (config.shot, config.fold, config.data.name) == (5, 0, "embedded")
    assert (config.backbone.name, config.model.width, config.data.image_size) == ("vgg16", 16, 32)
    other = composed("task=evaluate", f"checkpoint={trained_run()}", "fold=2", "data.image_size=64")
    assert (other.shot, other.fold, other.data.image_size) == (1, 2, 64)


def test_other_shots_and_classes_seen_in_training(tmp_path, capfd):
    arguments = (f"checkpoint={trained_run()}", "fold=1", "shot=3", "evaluate.episode_seeds=[4]")
    result, episodes = evaluate(tmp_path, *arguments)
    assert all(len(row["supports"].split(";")) == 3 for row in episodes)
    assert len(episodes) == 16  # with the baseline's
    (warning,) = result["warnings"]
    assert "was trained on inclusion, blister, pitted, roll_printing" in warning
    assert warning in capfd.readouterr().out


def test_a_released_pth_scores_as_the_run_it_was_made_of(tmp_path, as_torch, monkeypatch, capfd):
    run = trained_run("recipe.features=plain", "protocol.support_mask=point")
    tensors = network_tensors(run / "checkpoints" / "best.safetensors")
    state = {to_released(name): TorchTensor(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()}
    write_zip(tmp_path / "net.pth", {"epoch": 1, "state_dict": state})
    monkeypatch.undo()  # no PyTorch, not even its name
    results = []
    for name, checkpoint in (("run", run), ("file", tmp_path / "net.pth")):
        (tmp_path / name).mkdir()
        common = ("data=embedded", "data.image_size=32", "evaluate.episode_seeds=[0]")
        results.append(evaluate(tmp_path / name, f"checkpoint={checkpoint}", *common)[0])
    assert results[0]["draws"] == results[1]["draws"]
    (warning,) = results[1]["warnings"]
    assert warning in capfd.readouterr().out
    assert warning.startswith("net.pth does not say which classes it was trained on")


def test_the_training_free_method_by_the_same_command(tmp_path):
    result, _ = evaluate(tmp_path, "method=prototype", *TINY, "evaluate.episode_seeds=[0,1]")
    assert result["fb_iou"]["mean"] > 0
    assert "over_floor" not in result
    assert result["checkpoint"] is None


def test_a_run_of_the_training_free_method_is_a_checkpoint(tmp_path):
    run = trained_run("method=prototype")
    trained = json.loads((run / "result.json").read_text())
    result, _ = evaluate(tmp_path, f"checkpoint={run}", "evaluate.episode_seeds=[0]", "evaluate.episodes=4")
    assert result["miou"]["mean"] == pytest.approx(trained["best"]["miou"], abs=1e-6)


def test_checkpoints_of_a_sweep_are_told_apart(tmp_path):
    """Equal configurations run once; with another checkpoint they are not equal."""
    arguments = (f"checkpoint={trained_run()}", "evaluate.episode_seeds=[0]", "shot=1,2")
    assert run_here(tmp_path, "-m", *CPU, *arguments) == 0
    sweep = only(tmp_path / "outputs")
    statuses = [json.loads(path.read_text())["status"] for path in sweep.glob("*/result.json")]
    assert statuses == ["completed"] * 2
    assert "mIoU" in (sweep / "table.md").read_text()


MISTAKES = [
    ((), "checkpoint = null: task=evaluate needs one"),
    (("fold=9",), "fold = 9: data set embedded has folds 0, 1, 2"),
    (("evaluate.episode_seeds=[]",), "evaluate.episode_seeds"),
    (("evaluate.episode_seeds=[-1]",), "evaluate.episode_seeds"),
    (
        ("ablation=cpp",),
        'is another network: ablation.decoder._target_ = "cpanet.models.ConvDecoder" (in the checkpoint: ',
    ),
    (
        ("backbone.batch_norm=true",),
        "is another network: backbone.batch_norm = true (in the checkpoint: false)",
    ),
    (
        ("backbone=resnet50",),
        'is another network: backbone.name = "resnet50" (in the checkpoint: "vgg16"). Leave',
    ),
    (("method=prototype",), 'method = "prototype" (in the checkpoint: "cpanet")'),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_end_in_one_message(arguments, message, tmp_path, capfd):
    checkpoint = [f"checkpoint={trained_run()}"] if arguments else ["data=embedded"]
    assert run_here(tmp_path, *CPU, *checkpoint, *arguments) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()
