"""Mistakes of a user, and the one message that comes back: key, value, what is allowed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cpanet.errors import UserError
from tests.datasets import write_folder
from tests.hydra_app import compose, run_process, run_recorded
from tests.shared import shared

MISTAKES = [
    # unknown keys and options, with the nearest one
    ("los.k=1", "unknown key 'los.k'. Did you mean 'loss.k'?"),
    ("loss.kk=1", "Did you mean 'loss.k'?"),
    ("+loss.kk=1", "loss.kk: unknown key. Did you mean loss.k?"),
    ("+extra=1", "extra: unknown key"),
    ("++data.image_sizes=64", "Did you mean data.image_size?"),
    ("folds=1", "Did you mean"),
    ("optimizer.lr=1", "Did you mean 'recipe.optimizer.lr'?"),
    ("epochs=3", "Did you mean"),
    ("protocol=relased", "Did you mean 'released'?"),
    ("data=fsd12", "Did you mean 'fssd12'?"),
    ("recipe=slow", 'recipe = "slow": no such option'),
    ("backbone.name=vgg17", "To choose: backbone=OPTION"),
    # values out of range: tests/test_bad_input.py has one of each key
    ("data.image_size=90", "must be a multiple of 8, such as 88"),
    ("data.folds=4", "the folds of embedded are fixed"),
    # values of another type
    ("seed=1.0", "seed = 1.0"),
    ("seed=null", "seed = null"),
    ("seed='1'", 'seed = "1"'),
    ("loss=1", "loss"),
    ("loss.k=[0.2]", "loss.k = [0.2]"),
    ("ablation.cpp=maybe", "ablation.cpp"),
    ("ablation.decoder=null", "ablation.decoder = null"),
    ("ablation.decoder._target_=''", "must name its class"),
    ("log.verbose=3", "log.verbose = 3"),
    ("data=null", "data = null"),
    ("data.root=3", "data.root = 3"),
    ("backbone.weights=null", "backbone.weights = null"),
    ("backbone.weights=''", "backbone.weights"),
    ("~loss_k", "loss"),
    # unreadable for Hydra
    ("nonsense", "cannot read 'nonsense'"),
    ("a b=1", "cannot read"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_one_message_says_what_is_wrong(typed: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(typed)
    message = str(refused.value)
    assert said in message
    assert len(message) < 400
    assert "HYDRA_FULL_ERROR" not in message


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(UserError) as refused:
        compose("loss.k=-1", "seed=a", "fold=7", "train.epochs=0")
    message = str(refused.value)
    assert "4 problems" in message
    for key in ("loss.k", "seed", "fold", "train.epochs"):
        assert f"\n  {key} = " in message


@pytest.mark.parametrize("typed", ["los.k=1", "fold=7", "backbone=resnet5", "fold=[", "-=0", "--cfgg=job"])
def test_a_mistake_ends_in_status_2_and_writes_nothing(
    typed: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for mode in ([], ["-m"]):
        status, jobs = run_recorded(tmp_path, *mode, typed)
        said = capfd.readouterr()
        assert (status, jobs) == (2, [])
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err + said.out
        assert not list(tmp_path.iterdir())


def test_an_unknown_option_in_a_sweep_stops_it_before_it_writes(tmp_path: Path) -> None:
    assert run_recorded(tmp_path, "-m", "ablation=cpp,nothing", "fold=0,1") == (2, [])
    assert run_recorded(tmp_path, "-m", "los.k=0,1") == (2, [])
    assert not list(tmp_path.iterdir())


def test_one_bad_value_of_a_sweep_leaves_the_other_jobs(tmp_path: Path) -> None:
    status, jobs = run_recorded(tmp_path, "-m", "fold=0,7,1")
    assert status == 1
    assert [job.fold for job, _ in jobs] == [0, 1]


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    ended = run_process(tmp_path, "loss.k=-1")
    assert ended.returncode == 2
    assert ended.stderr == "error: loss.k = -1: must be greater than or equal to 0\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_is_looked_at_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, here = tmp_path / "mine", tmp_path / "here"
    here.mkdir()
    write_folder(root, ("dent", "hole", "rust"), per_class=4)
    mine = ("data=folder", f"data.root={root}")
    for typed, said in (
        ("fold=3", "has folds 0, 1, 2"),
        ("shot=4", "at most 3"),
        ("data.folds=4", "2 to 3 folds"),
    ):
        assert run_recorded(here, *mine, typed) == (2, [])
        assert said in capfd.readouterr().err
    assert not list(here.iterdir())
    assert run_recorded(here, *mine, "fold=2", "shot=3")[0] == 0


def test_metal8_has_four_folds_and_a_small_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    metal8 = ("data=metal8", f"data.root={shared('data/metal8')}")
    assert run_recorded(tmp_path, *metal8, "fold=3", "shot=31")[0] == 0
    assert run_recorded(tmp_path, *metal8, "fold=4") == (2, [])
    assert run_recorded(tmp_path, *metal8, "shot=32") == (2, [])
    assert "MT_Fray has 32 images" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (UserError("no compiler. Install g++."), 2),
        (OSError(errno.ENOSPC, "No space left on device", "x.csv"), 2),
        (ValueError("bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status_of_a_run(
    raised: BaseException, status: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> float:
        raise raised

    assert run_recorded(tmp_path, "fold=0", experiment=fail)[0] == status
    said = capfd.readouterr().err
    assert ("Traceback" in said) == (status == 1)
    assert "HYDRA_FULL_ERROR" not in said
    if status == 2:
        about = {
            "UserError": "no compiler. Install g++.",
            "OSError": "x.csv cannot be written (No space left on device). Free space, or start elsewhere.",
        }
        assert said == f"error: {about[type(raised).__name__]}\n"


def test_a_field_of_the_class_that_a_section_names_is_suggested() -> None:
    with pytest.raises(
        UserError, match=r"recipe\.episodes\.pseudos: unknown key\. Did you mean recipe\.episodes\.pseudo\?"
    ):
        compose("+recipe.episodes.pseudos=0.5", "data=embedded")
