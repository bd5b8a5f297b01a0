"""Runs that are refused: what they remove, and the jobs that a sweep counts as still to come."""

from __future__ import annotations

import json
from pathlib import Path

from cpanet.cli.callback import remove_unused
from cpanet.sweep.plan import Job, Plan
from cpanet.sweep.progress import Progress


def begun(directory: Path) -> Path:
    """A run that has written its configuration, and nothing else yet."""
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text("seed: 0")
    (directory / "run.log").write_text("")
    return directory


def test_a_refused_run_goes_with_the_folder_that_was_made_for_it(tmp_path: Path) -> None:
    remove_unused(begun(tmp_path / "outputs" / "mine"), tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


def test_a_refused_run_leaves_the_one_beside_it_alone(tmp_path: Path) -> None:
    other = begun(tmp_path / "outputs" / "other")
    remove_unused(begun(tmp_path / "outputs" / "mine"), tmp_path / "outputs")
    assert not (tmp_path / "outputs" / "mine").exists()
    assert (other / ".hydra" / "config.yaml").read_text() == "seed: 0"
    assert (other / "run.log").exists()


def test_a_job_that_failed_with_its_duplicates_leaves_the_others_to_go(tmp_path: Path, capsys) -> None:
    plan = Plan((Job("a", ()), Job("b", (), duplicate_of="a"), Job("c", ())), 3)
    for name, record in (
        ("a", {"status": "failed", "reason": "x"}),
        ("b", {"status": "duplicate", "duplicate_of": "a"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(record))
    Progress(tmp_path, plan, 2, "c").started()
    assert "1 to go" in capsys.readouterr().out
