"""Commands on directories that are there already, in use, or impossible."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cpanet import tasks
from cpanet.checkpoint.files import write_checkpoint
from cpanet.cli.launch import PATHS, SWEPT_PATHS, quote_path
from cpanet.cli.locks import FILE, lock_directory, unlock_directory
from tests.datasets import write_folder
from tests.hydra_app import REPO, compose, composed, run_here, run_process, run_recorded
from tests.sweep_runs import pretend

HOLD = """
import pathlib, sys
from cpanet.cli.locks import lock_directory
lock_directory(pathlib.Path(sys.argv[1]))
print("held", flush=True)
input()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to ``run``."""
    record(tmp_path / "run", "data=embedded")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    yield holder
    holder.kill()
    holder.wait()


PREDICT = ("method=prototype", "support=pictures/a", "query=pictures/b", "hydra.run.dir=run")


def test_a_directory_that_is_written_to_is_refused_until_its_process_ends(
    held: subprocess.Popen[bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "pictures")
    for command in (
        ["hydra.run.dir=run"],
        ["resume=run"],
        ["-m", "seed=0,1", "hydra.sweep.dir=run"],
        ["task=predict", *PREDICT],
        ["task=evaluate", "method=prototype", "data=embedded", "hydra.run.dir=run"],
    ):
        assert run_recorded(tmp_path, *command) == (2, [])
        assert f"is being written by process {held.pid} on " in capfd.readouterr().err
    held.kill()
    held.wait()
    assert run_recorded(tmp_path, "hydra.run.dir=run")[0] == 0
    assert not (tmp_path / "run" / FILE).exists()


def test_a_sweep_has_no_single_configuration_to_show(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_here(tmp_path, "-m", "seed=0,1", "--cfg", "job") == 2
    assert capfd.readouterr().err.startswith("error: -m, --cfg")


def test_a_run_directory_that_may_not_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "run", "data=embedded")
    before = sorted((tmp_path / "run").rglob("*"))

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cpanet.cli.locks.open", refuse, raising=False)  # root may write everywhere
    for command in (["resume=run"], ["hydra.run.dir=run"], ["-m", "seed=0,1", "hydra.sweep.dir=run"]):
        assert run_recorded(tmp_path, *command) == (2, [])
        said = capfd.readouterr().err
        assert said.endswith(
            f"error: {tmp_path / 'run'} cannot be written (Permission denied). Mend the directory, or choose another one.\n"
        )
        assert "Traceback" not in said
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_lock_taken_twice_by_one_process_is_one(tmp_path: Path) -> None:
    lock_directory(tmp_path)
    lock_directory(tmp_path)
    unlock_directory(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("left", "go_on"),
    [("result.json", "resume"), ("checkpoints", "resume"), ("jobs.json", "-m hydra.sweep.dir")],
)
def test_results_are_not_overwritten(
    left: str, go_on: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / left).mkdir(parents=True)
    assert run_recorded(tmp_path, "hydra.run.dir=run") == (2, [])
    assert f"{go_on}={tmp_path / 'run'};" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [left]


def test_a_sweep_does_not_go_into_the_directory_of_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert run_recorded(tmp_path, "-m", "seed=0,1", "hydra.sweep.dir=run") == (2, [])
    assert "holds a single run" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_a_job_in_a_directory_of_its_own_leaves_the_tables_where_they_belong(tmp_path: Path) -> None:
    command = ("-m", "seed=0,1", "hydra.sweep.dir=sweep", "hydra.job.chdir=true")
    status, jobs = run_recorded(tmp_path, *command, experiment=pretend)
    assert status == 0
    assert [path for _, path in jobs] == [tmp_path / "sweep" / f"seed={seed}" for seed in (0, 1)]
    assert [path.parent for path in tmp_path.rglob("table.md")] == [tmp_path / "sweep"]


def test_what_cannot_be_read_is_shown_as_it_has_to_be_typed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_here(tmp_path, "train.epochs={3") == 2
    assert shlex.split(capfd.readouterr().err.rpartition("type: ")[2]) == ["train.epochs='{3'"]
    assert run_here(tmp_path, "task=predict", "method=prototype", "predict.category=1") == 2
    assert shlex.split(capfd.readouterr().err.rpartition(": ")[2]) == ["predict.category='1'"]


@pytest.mark.parametrize("directory", ["README.md", "README.md/x", "/proc/foo"])
@pytest.mark.parametrize("command", [("hydra.run.dir=",), ("-m", "seed=0,1", "hydra.sweep.dir=")])
def test_an_impossible_directory_is_one_sentence(
    command: tuple[str, ...], directory: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("text")
    assert run_recorded(tmp_path, *command[:-1], command[-1] + directory) == (2, [])
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said


ODD = [
    "/数据/钢", "a b", "x[1]", "a,b", "(x)", "{y}", "=z", "#1", "$a", "o'brien", 'a"b', "a'b\"c, d", "a\\", "c:\\d",
    "\\'", "x;&|!",
]  # fmt: skip


@pytest.mark.parametrize("key", [*PATHS, *SWEPT_PATHS, "++data.root"])
@pytest.mark.parametrize("value", ODD)
def test_paths_and_names_are_quoted_for_hydra(key: str, value: str) -> None:
    [override] = OverridesParser.create().parse_overrides([quote_path(f"{key}={value}")])
    assert override.value() == value


@pytest.mark.parametrize("value", ["'a,b'", '"a b"', "${oc.env:HOME}/x", "null", "plain/path-1.png"])
def test_what_is_in_hydras_grammar_stays_as_it_is(value: str) -> None:
    assert quote_path(f"data.root={value}") == f"data.root={value}"


NAME = "钢 [1],a=b's (x) #$y"


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")])
def test_a_folder_of_any_name_is_a_data_set(sweep: tuple[str, ...], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / (NAME if not sweep else NAME.replace(",", "")))
    status, jobs = run_recorded(tmp_path, *sweep, "data=folder", f"data.root={folder.name}")
    assert status == 0
    assert {checked.data.root for checked, _ in jobs} == {str(folder)}


def test_pictures_of_any_name_are_predicted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / NAME)
    paths = (f"support={NAME}/a", f"query={NAME}/b", f"predict.category={NAME}")
    command = ("task=predict", "method=prototype", *paths)
    with mock.patch.object(tasks, "run", return_value=0.5) as task:
        assert run_here(tmp_path, *command, f"hydra.run.dir={NAME}/out, 1") == 0
    checked, directory = task.call_args.args[:2]
    assert (checked.support, checked.query) == (str(folder / "a"), str(folder / "b"))
    assert (checked.predict.category, directory) == (NAME, folder / "out, 1")


def test_a_sweep_over_paths_stays_a_sweep() -> None:
    assert quote_path("data.root=a b,/c", sweep=True) == "data.root='a b',/c"
    assert quote_path("backbone.weights=choice(a,b)", sweep=True) == "backbone.weights=choice(a,b)"
    assert quote_path("data.root='a,b',/c", sweep=True) == "data.root='a,b',/c"


def record(directory: Path, *overrides: str) -> dict[str, Any]:
    """A run's directory as Hydra leaves it."""
    config: Any = OmegaConf.to_container(composed(*overrides), resolve=False)
    config.pop("hydra", None)
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return config


def test_a_run_goes_on_with_a_data_set_that_was_moved(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "old")
    record(tmp_path / "run", "data=folder", f"data.root={old}")
    new = old.rename(tmp_path / "new")
    status, [(checked, _)] = run_recorded(tmp_path, "resume=run", "data.root=new")
    assert (status, checked.data.name, checked.data.root) == (0, "folder", str(new))


def test_a_checkpoint_is_tested_on_a_data_set_that_was_moved(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "old")
    trained = compose("data=folder", f"data.root={old}", "device=cpu", "profile=tiny")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    write_checkpoint(best, {}, {"config": trained.model_dump()})
    new = old.rename(tmp_path / "new")
    checked = compose("task=evaluate", f"checkpoint={tmp_path / 'run'}", f"data.root={new}")
    assert (checked.data.name, checked.data.root) == ("folder", str(new))


def test_weights_by_a_relative_path_are_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "w.safetensors"
    write_checkpoint(weights, {}, {})
    monkeypatch.chdir(tmp_path)
    recorded = record(tmp_path / "run", "backbone.weights=w.safetensors", "data=embedded")
    assert recorded["backbone"]["weights"] == str(weights)
    (tmp_path / "elsewhere").mkdir()
    for more in ((), (f"backbone.weights={weights}",)):
        status, [(checked, _)] = run_recorded(tmp_path / "elsewhere", f"resume={tmp_path / 'run'}", *more)
        assert (status, checked.backbone.weights) == (0, str(weights))


@pytest.mark.slow
def test_a_terminal_without_utf8_ends_nothing(tmp_path: Path) -> None:
    shown = run_process(tmp_path, "profile=nonsense", "data=钢", PYTHONIOENCODING="ascii")
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    script = "from cpanet.console import *; replace_unencodable(); print('✓ 3×3 → 钢'); log('✗ ▼')"
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    assert said.stdout == "ok 3x3 -> ?\nFAILED ?\n", said.stderr  # that a check has failed can still be seen
    posix = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    refused = run_process(tmp_path, "data=folder", "data.root=钢", **posix)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "the locale (ascii) cannot read this argument. Set LC_ALL=C.UTF-8" in refused.stderr
    help_text = run_process(tmp_path, "--help", PYTHONIOENCODING="ascii")
    assert help_text.returncode == 0
    assert run_here(tmp_path, "--help") == 0
