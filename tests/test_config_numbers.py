"""Numbers as options of groups: typed bare, quoted, as floats, in lists, in sweeps, out of range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpanet.errors import UserError
from tests.hydra_app import compose, run_recorded


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("fold=0", "fold", 0),
        ("fold=2", "fold", 2),
        ("fold='1'", "fold", 1),
        ('fold="1"', "fold", 1),
        ("fold=1.0", "fold", 1),
        ("shot=5", "shot", 5),
        ("shot=3", "shot", 3),  # no option of the group, but a legal number of supports
        ("shot='3'", "shot", 3),
        ("loss_k=0", "k", 0.0),
        ("loss_k=0.0", "k", 0.0),
        ("loss_k='0'", "k", 0.0),
        ("loss_k=1", "k", 1.0),
        ("loss_k=.4", "k", 0.4),
        ("loss_k=2e-1", "k", 0.2),
        ("loss_k=0.3", "k", 0.3),
        ("loss_k=7", "k", 7.0),
        ("loss.k=1", "k", 1.0),
    ],
)
def test_a_number_is_an_option(typed: str, key: str, value: Any) -> None:
    checked = compose(typed)
    found = checked.loss.k if key == "k" else getattr(checked, key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_one_typed_counts() -> None:
    assert compose("fold=0", "fold=2").fold == 2
    assert compose("shot=3", "shot=7").shot == 7
    assert compose("loss_k=0.2", "loss.k=0.3").loss.k == 0.3


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("fold=7", "fold = 7: data set embedded has folds 0, 1, 2"),
        ("fold=-1", "fold = -1"),
        ("fold=1.5", "fold = 1.5"),
        ("fold=nan", "fold"),
        ("fold=true", "fold = true: no such option"),
        ("fold=null", "fold = null: no such option"),
        ("fold=first", 'fold = "first": no such option'),
        ("fold=[0,1]", "To run several: -m fold=0,1"),
        ("fold={a:1}", "fold"),
        ("shot=0", "shot = 0"),
        ("shot=5.5", "shot = 5.5"),
        ("loss_k=-0.2", "loss.k = -0.2"),
        ("loss_k=inf", "loss"),
        ("loss_k=x", 'loss_k = "x": no such option'),
        ("backbone=50", "backbone = 50: no such option. Options: "),
        ("fold=0,1", "-m"),
    ],
)
def test_other_values_are_refused_in_one_message(typed: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(typed)
    assert said in str(refused.value)
    assert "Got int" not in str(refused.value)


def jobs_of(tmp_path: Path, *arguments: str) -> list[tuple[Any, ...]]:
    status, jobs = run_recorded(tmp_path, *arguments)
    assert status == 0
    return [(job.ablation.name, job.loss.k, job.fold, job.shot) for job, _ in jobs]


def test_documented_single_run(tmp_path: Path) -> None:
    status, [(job, run_dir)] = run_recorded(tmp_path, "backbone=resnet50", "fold=0")
    assert status == 0
    assert (job.backbone.name, job.fold) == ("resnet50", 0)
    assert run_dir == tmp_path / "outputs" / "backbone=resnet50,fold=0"
    assert (run_dir / ".hydra" / "config.yaml").is_file()


def test_documented_ablation_sweep(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "-m", "ablation=cpp,sa,ssa", "loss.k=0,0.2,0.4")
    # without SA k says nothing: each of these functions is run once, and shown in its three places
    assert jobs == [("cpp", 0.0, 0, 1), *(("sa", k, 0, 1) for k in (0.0, 0.2, 0.4)), ("ssa", 0.0, 0, 1)]
    named = {f"ablation={name},loss.k={k}" for name in ("cpp", "sa", "ssa") for k in ("0", "0.2", "0.4")}
    assert {path.parent.name for path in tmp_path.glob("outputs/*/*/.hydra")} == named


def test_documented_fold_sweep(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "-m", "fold=0,1,2", "shot=1,5", "loss_k=0.2,0.4")
    assert jobs == [("full", k, fold, shot) for fold in (0, 1, 2) for shot in (1, 5) for k in (0.2, 0.4)]


@pytest.mark.parametrize(
    ("typed", "folds"),
    [
        ("fold=range(0,3)", [0, 1, 2]),
        ("fold=choice(0,2)", [0, 2]),
        ("fold='0','1'", [0, 1]),
        ("fold=glob(*,exclude='3')", [0, 1, 2]),
    ],
)
def test_other_ways_to_sweep(typed: str, folds: list[int], tmp_path: Path) -> None:
    assert [job[2] for job in jobs_of(tmp_path, "-m", typed)] == folds


def test_axes_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine" / "axes").mkdir(parents=True)
    (tmp_path / "mine" / "axes" / "some.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      fold: 1,2\n      loss_k: 0,1\n"
    )
    status, jobs = run_recorded(tmp_path, "-m", "--config-dir", str(tmp_path / "mine"), "+axes=some")
    assert status == 0
    assert [(job.fold, job.loss.k) for job, _ in jobs] == [(1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)]
    assert jobs[0][1].name == "fold=1,loss_k=0"


def test_a_sweep_over_nothing_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_recorded(tmp_path, "-m", "fold=glob(none*)") == (2, [])
    assert "fold=glob(none*): nothing to sweep over" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
