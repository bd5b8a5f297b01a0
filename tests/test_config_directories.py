"""Run directories: names that say what was overridden, one directory a run."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from cpanet.cli.naming import LONGEST, create_run_dir, run_name
from cpanet.errors import UserError
from tests.hydra_app import run_recorded


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "defaults"),
        (["backbone=resnet50", "fold=0"], "backbone=resnet50,fold=0"),
        (["fold=0", "fold=1"], "fold=1"),
        (["fold='1'"], "fold=1"),
        (["ablation=cpp,sa", "loss.k=0,0.2"], "ablation=cpp+sa,loss.k=0+0.2"),
        (["fold=range(0,3)"], "fold=0+1+2"),
        (["device=cpu", "data.root=/x"], "defaults"),
        (["device=cpu", "seed=3"], "seed=3"),
        (["hydra.verbose=true", "seed=3"], "seed=3"),
        (["+extra=1"], "extra=1"),
        (["~seed"], "~seed"),
    ],
)
def test_names_say_what_was_overridden(overrides: list[str], name: str) -> None:
    assert run_name(overrides, exclude=["device", "data.root"]) == name


@pytest.mark.parametrize(
    "value", ["/a/b.pth", "'../../etc'", "'a b'", "'钢'", "'.'", "a:b", "[1,2]", "'a/../b'"]
)
def test_names_are_safe_single_folders(value: str, tmp_path: Path) -> None:
    name = run_name([f"backbone.weights={value}"])
    assert not set(name) & set("/ :'[")
    assert not name.startswith(".")
    assert create_run_dir(tmp_path / name).parent == tmp_path


def test_values_that_look_alike_after_cleaning_have_different_names() -> None:
    assert run_name(["data.root=/a/b"]) != run_name(["data.root=/a-b"]) != run_name(["data.root=a-b"])


def test_long_names_are_cut_and_stay_different() -> None:
    names = {run_name([f"seed={seed}", f"backbone.weights={'x' * 300}{seed}"]) for seed in range(5)}
    assert len(names) == 5
    assert all(len(name.encode()) <= LONGEST for name in names)
    assert len(run_name([f"backbone.weights='{'钢' * 200}'"]).encode()) <= LONGEST


def test_a_repeat_gets_a_number(tmp_path: Path) -> None:
    names = [run_recorded(tmp_path, "fold=1", "device=cpu")[1][0][1].name for _ in range(3)]
    assert names == ["fold=1", "fold=1_2", "fold=1_3"]


def test_a_sweep_holds_its_jobs_named_by_what_varies(tmp_path: Path) -> None:
    for sweep in ("fold=0+1,seed=3", "fold=0+1,seed=3_2"):
        _, jobs = run_recorded(tmp_path, "-m", "fold=0,1", "seed=3")
        assert [run_dir for _, run_dir in jobs] == [
            tmp_path / "outputs" / sweep / f"fold={f}" for f in (0, 1)
        ]


def test_a_swept_key_is_named_even_if_it_usually_is_not(tmp_path: Path) -> None:
    run_recorded(tmp_path, "-m", "data.workers=0,1")
    assert {path.parent.name for path in tmp_path.glob("outputs/*/*/.hydra")} == {
        "data.workers=0",
        "data.workers=1",
    }


def test_a_directory_asked_for_is_taken(tmp_path: Path) -> None:
    for _ in range(2):
        _, [(_, run_dir)] = run_recorded(tmp_path, f"hydra.run.dir={tmp_path}/here")
        assert run_dir == tmp_path / "here"


def test_the_resolved_choices_are_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    for arguments in (["device=cpu"], ["-m", "device=cpu", "fold=0,1"]):
        _, jobs = run_recorded(tmp_path, *arguments)
        said = capfd.readouterr().out
        assert said.count("profile=auto → quick") == 1
        assert said.count("data=auto → embedded") == 1
        for _, run_dir in jobs:
            recorded = OmegaConf.load(run_dir / ".hydra" / "config.yaml")
            assert (recorded.profile, recorded.data.name) == ("quick", "embedded")


def _create(path: Path) -> str:
    return create_run_dir(path).name


def test_runs_started_together_never_share_a_directory(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        names = pool.map(_create, [tmp_path / "outputs" / "fold=0"] * 40, chunksize=1)
    assert sorted(names) == sorted(["fold=0"] + [f"fold=0_{n}" for n in range(2, 41)])


def test_an_outputs_folder_that_cannot_be_written_is_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot create the run directory"):
        create_run_dir(tmp_path / "outputs" / "fold=0")
    assert run_recorded(tmp_path, "fold=0") == (2, [])
    assert capfd.readouterr().err.startswith("error: cannot create the run directory")
