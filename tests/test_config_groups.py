"""Every group option composes and passes validation; the documented commands mean what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cpanet.config.keys import leaves
from tests.datasets import write_folder
from tests.hydra_app import CONF, REPO, compose, composed, options, run_here, run_process

GROUPS = {
    "backbone": "vgg16 vgg16_bn resnet50 resnet101 resnet152 resnet50_deep resnet101_deep resnet152_deep",
    "ablation": "none cpp sa ssa cpp_sa cpp_ssa sa_ssa full",
    "loss_k": "0.0 0.2 0.4 0.6 0.8 1.0",
    "fold": "0 1 2 3",
    "shot": "1 5",
    "data": "auto fssd12 embedded metal8 folder",
    "protocol": "corrected released released_prototype_average released_aux_loss released_backbone_mode "
    "released_aux_padding released_support_mask",
    "profile": "paper cpu quick tiny auto",
    "recipe": "paper fast steel",
    "recipe/episodes": "plain pseudo",
    "recipe/optimizer": "sgd adamw adamw_gentle",
    "recipe/schedule": "poly cosine",
    "recipe/loss": "plain dice weighted weighted_gentle",
    "device": "auto cpu cuda",
    "task": "train predict evaluate export explore",
    "sweep": "modules loss_k backbones protocol folds",
}
ALONE = ("task", "sweep", "device")  # decide what the others mean


def test_the_groups_are_those_promised() -> None:
    on_disk = {
        str(path.relative_to(CONF))
        for path in CONF.rglob("*")
        if path.is_dir() and any(path.glob("*.yaml")) and "hydra" not in path.parts
    }
    assert on_disk == set(GROUPS)
    for group, names in GROUPS.items():
        assert options(group) == set(names.split())


def nth_options() -> list[dict[str, str]]:
    """The first option of every group together, the second ones, and so on; those of ALONE by themselves."""
    names = {group: options.split() for group, options in GROUPS.items()}
    together = [
        {group: found[n] for group, found in names.items() if group not in ALONE and n < len(found)}
        for n in range(max(map(len, names.values())))
    ]
    return together + [{group: option} for group in ALONE for option in names[group]]


@pytest.mark.parametrize("chosen", nth_options(), ids=lambda chosen: ",".join(chosen.values()))
def test_every_option_composes_and_validates(chosen: dict[str, str]) -> None:
    extra = ["data.root=somewhere"] if chosen.get("data") in ("fssd12", "metal8", "folder") else []
    config = compose(*(f"{group}={option}" for group, option in chosen.items()), *extra)
    for group in ("backbone", "ablation", "protocol", "data", "recipe"):
        if chosen.get(group, "auto") != "auto":
            assert getattr(config, group).name == chosen[group]


def test_no_two_groups_set_the_same_key() -> None:
    """Else the order of the defaults would decide, and a chosen option could lose to a profile."""
    owner: dict[str, str] = {}
    for group in GROUPS:
        package = group.replace("/", ".")
        for path in (CONF / group).glob("*.yaml"):
            content = OmegaConf.load(path)
            content.pop("defaults", None)
            prefix = "" if "@package _global_" in path.read_text("utf-8") else package
            for key in leaves(content, prefix):
                assert owner.setdefault(key, group) == group, f"{key} is set by {owner[key]} and by {group}"


def test_a_typed_value_wins_over_the_profile() -> None:
    checked = compose("profile=quick", "data.image_size=128", "train.epochs=3", "recipe.optimizer.lr=0.01")
    assert (checked.data.image_size, checked.train.epochs, checked.recipe.optimizer.lr) == (128, 3, 0.01)


def test_a_chosen_recipe_wins_over_the_profiles_own() -> None:
    assert compose("profile=quick").recipe.name == "fast"
    assert compose("profile=paper").recipe.name == "paper"
    assert compose("profile=quick", "recipe=paper").recipe.name == "paper"
    mixed = compose("profile=paper", "recipe=fast", "recipe/optimizer=sgd").recipe
    assert (mixed.name, mixed.optimizer.name, mixed.schedule.name) == ("fast", "sgd", "cosine")


@pytest.mark.parametrize(
    ("backbone", "lr", "epochs"),
    [("vgg16", 0.0025, 200), ("vgg16_bn", 0.0025, 200), ("resnet50_deep", 0.001, 201)],
)
def test_the_paper_profile_is_the_papers_protocol(backbone: str, lr: float, epochs: int) -> None:
    checked = compose("profile=paper", f"backbone={backbone}")
    assert (checked.train.epochs, checked.train.batch_size, checked.recipe.optimizer.lr) == (epochs, 2, lr)
    assert (checked.data.image_size, checked.model.width, checked.loss.k) == (200, 256, 0.4)
    assert (checked.recipe.optimizer.name, checked.recipe.optimizer.momentum) == ("sgd", 0.9)
    assert (checked.recipe.optimizer.weight_decay, checked.recipe.optimizer.head_lr_multiplier) == (
        1e-4,
        10.0,
    )
    assert (checked.recipe.schedule.name, checked.recipe.schedule.power) == ("poly", 0.9)


@pytest.mark.parametrize(
    ("usable", "device", "profile"),
    [(True, "auto", "paper"), (False, "auto", "quick"), (True, "cpu", "quick"), (False, "cuda", "paper")],
)
def test_profile_auto_asks_the_machine(
    usable: bool, device: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpanet.runtime import CudaReport

    monkeypatch.setattr("cpanet.config.defaults.probe_cuda", lambda: CudaReport(usable, "said so"))
    for typed in ([], ["profile=auto"]):
        checked = compose(*typed, f"device={device}")
        assert checked.profile == profile
        assert checked.recipe.name == {"paper": "paper", "quick": "fast"}[profile]


def test_real_data_without_a_gpu_is_trained_at_the_papers_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpanet.runtime import CudaReport

    monkeypatch.setattr("cpanet.config.defaults.probe_cuda", lambda: CudaReport(False, "said so"))
    checked = composed("data=folder", f"data.root={tmp_path}")
    assert (checked.profile, checked.recipe.name, checked.data.image_size) == ("cpu", "steel", 200)


def test_data_auto_is_fssd12_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSSD12_ROOT", raising=False)
    assert compose().data.name == "embedded"
    for name in ("Am", "Ia", "Ld", "Op", "Os", "Ws", "Pa", "Pk", "Ri", "Rp", "Sc", "Se"):
        (tmp_path / f"Steel_{name}").mkdir()
    typed = compose(f"data.root={tmp_path}").data
    monkeypatch.setenv("FSSD12_ROOT", str(tmp_path))
    for data in (typed, compose().data, compose("data=fssd12").data):
        assert (data.name, data.label, data.root) == ("fssd12", "FSSD-12", str(tmp_path))
    assert compose("data=embedded").data.root is None


def test_the_ablation_is_named_for_what_is_on() -> None:
    assert compose("ablation.cpp=false").ablation.name == "sa_ssa"
    assert compose("ablation=none", "ablation.ssa=true").ablation.name == "ssa"


def test_help_from_another_directory_lists_groups_and_commands(tmp_path: Path) -> None:
    shown = run_process(tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^fold: 0, 1, 2, 3$", shown.stdout, re.MULTILINE)
    assert re.search(r"^backbone: .*resnet101_deep", shown.stdout, re.MULTILINE)
    assert "python run.py -m ablation=cpp,sa,ssa loss.k=0,0.2,0.4" in shown.stdout
    assert not list(tmp_path.iterdir())


def test_the_installed_command_names_itself(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "cpanet"
    command.parent.mkdir()
    command.write_text("from cpanet.__main__ import main\nmain()\n")
    typed = [sys.executable, str(command)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    shown = subprocess.run([*typed, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "\n  cpanet -m ablation=cpp,sa,ssa loss.k=0,0.2,0.4" in shown.stdout, shown.stderr
    assert "run.py" not in shown.stdout
    wrong = subprocess.run([*typed, "seeed=1"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert wrong.stderr.endswith("See all groups and keys: cpanet --help\n")


A_RUN = """
from pathlib import Path
from tests.hydra_app import run_recorded
raise SystemExit(run_recorded(Path.cwd(), "data=auto", "profile=tiny")[0])
"""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([str(REPO / "run.py"), "--help"], 1, ""),
        pytest.param([str(REPO / "run.py"), "seed=1", "--cfg", "job"], 1, "", marks=pytest.mark.slow),
        pytest.param(["-m", "cpanet.data", "check", "data"], 1, "", marks=pytest.mark.slow),
        (["-c", A_RUN], 130, "interrupted\n"),
    ],
)
def test_a_reader_that_has_ended_ends_the_command(
    arguments: list[str], status: int, said: str, tmp_path: Path
) -> None:
    write_folder(tmp_path / "data")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            # SIGINT is ignored where the tests themselves were started behind `&`
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.slow
def test_cfg_job_from_another_directory_writes_nothing(tmp_path: Path) -> None:
    shown = run_process(tmp_path, "backbone=resnet50", "fold=0", "loss_k=0", "--cfg", "job", "--resolve")
    assert shown.returncode == 0, shown.stderr
    config = OmegaConf.create(shown.stdout)
    assert (config.backbone.name, config.fold, config.loss.k) == ("resnet50", 0, 0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fold=", {f"fold={fold}" for fold in "0123"}),
        ("fold=0 sho", {"shot="}),
        ("backbone=resnet50_", {"backbone=resnet50_deep"}),
        ("loss_k=0.2 fold=1 loss.", {"loss.k="}),
    ],
)
def test_shell_completion(
    line: str,
    offered: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COMP_LINE", f"python run.py {line}")
    monkeypatch.setenv("COMP_POINT", str(len(line) + 14))
    assert run_here(tmp_path, "-sc", "query=bash") == 0
    assert offered <= set(capsys.readouterr().out.split())


@pytest.mark.slow
def test_shell_completion_in_a_process_of_its_own(tmp_path: Path) -> None:
    shown = run_process(tmp_path, "-sc", "query=bash", COMP_LINE="python run.py fold=", COMP_POINT="19")
    assert {f"fold={fold}" for fold in "0123"} <= set(shown.stdout.split()), shown.stdout + shown.stderr
