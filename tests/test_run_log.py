"""The content of ``run.log``, and the last line of an interrupted command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cpanet.cli.launch import quote_path
from cpanet.console import console, log
from cpanet.errors import UserError
from cpanet.records.run_directory import RunDirectory
from cpanet.tasks import train
from tests.hydra_app import compose, run_recorded
from tests.sweep_runs import only

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    (.*)")


def lines(directory: Path) -> list[str]:
    """The logged lines, each after its time."""
    found = [LINE.fullmatch(line) for line in (directory / "run.log").read_text("utf-8").splitlines()]
    assert all(found)
    return [match[1] for match in found if match]


def log_and_print(checked: Any, directory: Path) -> float:
    log(f"seed {checked.seed}: [bold] → {directory.name}", "yellow")
    console.print("mIoU [green]0.5[/]")
    return 0.5


def test_a_run_keeps_what_the_terminal_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = ("data=embedded", "device=cpu", "hydra.run.dir=run")
    status, _ = run_recorded(tmp_path, *typed, experiment=log_and_print)
    assert status == 0
    kept = lines(tmp_path / "run")
    assert kept[-2:] == ["seed 0: [bold] → run", "mIoU 0.5"]
    assert any(line.startswith("profile=auto → ") for line in kept)  # said before there was a directory
    assert [line for line in capfd.readouterr().out.splitlines() if line.strip()] == kept


def test_each_job_of_a_sweep_keeps_its_own(tmp_path: Path) -> None:
    typed = ("-m", "seed=0,1", "data=embedded", "profile=tiny")
    status, _ = run_recorded(tmp_path, *typed, experiment=log_and_print)
    assert status == 0
    sweep = only(tmp_path / "outputs")
    for seed in (0, 1):
        kept = lines(sweep / f"seed={seed}")
        assert [line for line in kept if line.startswith("seed ")] == [f"seed {seed}: [bold] → seed={seed}"]


def test_the_end_of_a_run_that_failed_is_in_its_log(tmp_path: Path) -> None:
    def fail(checked: Any, directory: Path) -> float:
        (directory / "checkpoints").mkdir()
        (directory / "checkpoints" / "last.safetensors").touch()
        raise UserError("the disk is full.")

    status, _ = run_recorded(tmp_path, "data=embedded", "profile=tiny", "hydra.run.dir=run", experiment=fail)
    assert status == 2
    assert lines(tmp_path / "run")[-1] == "error: the disk is full."


@pytest.mark.parametrize("name", ["fold=0,seed=1", "a b", "it's", "钢 (1)", '"x"'])
def test_an_interrupted_run_says_the_command_that_goes_on(name: str, tmp_path: Path) -> None:
    with (
        mock.patch("cpanet.training.run.run", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt) as ended,
    ):
        train.run(compose("data=embedded", "profile=tiny", "device=cpu"), tmp_path / name)
    said = str(ended.value)
    assert said == f"To go on: {RunDirectory(tmp_path / name).resume_command}"
    program, script, typed = shlex.split(said.removeprefix("To go on: "))
    assert (program, script) == ("python", "run.py")
    (override,) = OverridesParser.create().parse_overrides([quote_path(typed)])
    assert override.key_or_group == "resume"
    assert override.value() == str(tmp_path / name)


def test_an_interrupted_sweep_says_the_command_that_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(checked: Any, directory: Path) -> float:
        raise KeyboardInterrupt("To go on: with this job alone")

    status, _ = run_recorded(tmp_path, "-m", "seed=0,1", "data=embedded", "profile=tiny", experiment=stop)
    assert status == 130
    said = capfd.readouterr().err
    assert said == "interrupted. To go on: python run.py -m seed=0,1 data=embedded profile=tiny resume=true\n"
