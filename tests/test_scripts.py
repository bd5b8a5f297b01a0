"""Commands that run unattended: what is done is not done again, time is kept, a failure is told."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cpanet.errors import UserError
from scripts import gpu_benchmarks, gpu_parity, gpu_tables, stages
from scripts.gpu_all import STAGES

QUIET = Console(quiet=True)


class Runner:
    """Stands in for processes: writes what a task makes, unless it is to end otherwise."""

    def __init__(self, **ends: stages.Ended) -> None:
        self.ends, self.ran = ends, []

    def __call__(self, task: stages.Task, log: Path, seconds: float) -> stages.Ended:
        self.ran.append(task.name)
        ended = self.ends.get(task.name, stages.Ended(stages.DONE, 0))
        if ended.status == stages.DONE:
            task.makes.parent.mkdir(parents=True, exist_ok=True)
            task.makes.write_text("{}")
        return ended


def three(out: Path) -> list[stages.Task]:
    return [stages.Task(name, ("true",), out / f"{name}.json", needs=10) for name in ("a", "b", "c")]


def work(
    out: Path,
    runner: Runner,
    tasks: list[stages.Task] | None = None,
    seconds: float = math.inf,
    **options: Any,
) -> int:
    with mock.patch.object(stages, "in_child", runner):
        return stages.work_through(tasks or three(out), out, time.monotonic() + seconds, QUIET, **options)


def status(out: Path) -> dict[str, str]:
    tasks = json.loads((out / stages.LEDGER).read_text())["tasks"]
    return {name: task["status"] for name, task in tasks.items()}


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    assert work(tmp_path, Runner()) == stages.COMPLETE
    (tmp_path / "b.json").unlink()  # its output is gone
    again = Runner()
    assert work(tmp_path, again) == stages.COMPLETE
    assert again.ran == ["b"]


def test_another_command_is_other_work(tmp_path: Path) -> None:
    work(tmp_path, Runner())
    runner = Runner()
    work(tmp_path, runner, [stages.Task("a", ("false",), tmp_path / "a.json")])
    assert runner.ran == ["a"]


def test_a_failure_is_recorded_and_tried_again_and_the_rest_goes_on(tmp_path: Path) -> None:
    assert work(tmp_path, Runner(b=stages.Ended(stages.FAILED, 1))) == stages.INCOMPLETE
    assert status(tmp_path) == {"a": "done", "b": "failed", "c": "done"}
    again = Runner()
    assert work(tmp_path, again) == stages.COMPLETE
    assert again.ran == ["b"]


def test_a_gate_that_fails_stops_its_stage(tmp_path: Path) -> None:
    runner = Runner(a=stages.Ended(stages.FAILED, 1))
    assert work(tmp_path, runner, stop=True) == stages.INCOMPLETE
    assert runner.ran == ["a"]


def test_nothing_is_started_that_there_is_no_time_for(tmp_path: Path) -> None:
    runner = Runner()
    assert work(tmp_path, runner, seconds=6) == stages.UNFINISHED
    assert runner.ran == []


def test_a_task_that_is_stopped_is_gone_on_with(tmp_path: Path) -> None:
    assert work(tmp_path, Runner(b=stages.Ended(stages.STOPPED))) == stages.UNFINISHED
    assert status(tmp_path) == {"a": "done", "b": "stopped"}
    again = Runner()
    assert work(tmp_path, again) == stages.COMPLETE
    assert again.ran == ["b", "c"]


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / stages.LEDGER).write_text("{")
    with pytest.raises(UserError, match=r"stages\.json"):
        work(tmp_path, Runner())


# --------------------------------------------------------------------------------------------- real processes


def script(tmp_path: Path, text: str) -> stages.Task:
    return stages.Task("task", (sys.executable, "-c", text), tmp_path / "made")


def test_a_process_leaves_its_output_and_its_status(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "task.log"
    ended = stages.in_child(script(tmp_path, "print('hello'); raise SystemExit(3)"), log, 60)
    assert ended == stages.Ended(stages.FAILED, 3)
    assert stages.last_lines(log)[-1] == "hello"


def test_a_process_whose_time_is_over_may_save(tmp_path: Path) -> None:
    text = f"""
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path({str(tmp_path / "saved")!r}).write_text("yes")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(tmp_path / "ready")!r}).write_text("")
time.sleep(60)
"""
    begin = time.monotonic()
    ended = stages.in_child(script(tmp_path, text), tmp_path / "task.log", 2)
    assert ended == stages.Ended(stages.STOPPED, 130)
    assert (tmp_path / "saved").read_text() == "yes"
    assert time.monotonic() - begin < 30


def test_a_script_that_is_ended_ends_what_is_under_way(tmp_path: Path) -> None:
    text = f"""
import sys
from pathlib import Path
from scripts import stages
says_who_it_is = "import os, time; open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid())); time.sleep(60)"
sleep = (sys.executable, "-c", says_who_it_is)
task = stages.Task("sleep", sleep, Path({str(tmp_path / "made")!r}))
stage = stages.Stage("one", "", lambda made: None, lambda options: [task], lambda options, console: True)
sys.exit(stages.main("one", "", [stage], ["--out", {str(tmp_path / "out")!r}]))
"""
    script = subprocess.Popen([sys.executable, "-c", text], cwd=stages.ROOT)
    pid, deadline = tmp_path / "pid", time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    script.terminate()
    assert script.wait(30) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# ------------------------------------------------------------------------------------------------- the whole


def options(*words: str) -> argparse.Namespace:
    return stages.parser("gpu_all", "", STAGES).parse_args(words)


def test_every_stage_plans_its_work(tmp_path: Path) -> None:
    given = options("--out", str(tmp_path), "--quick", "--device", "cuda")
    names = [task.name for stage in STAGES for task in stage.tasks(given)]
    assert len(names) == len(set(names))
    assert names[0] == "doctor"
    for order in (
        ("parity-fixtures", "step-vgg16-fp32", "step-vgg16-fp16"),
        ("profile-vgg16-tf32", "evaluate-vgg16-fp32", "largest-vgg16-fp32"),
        ("tables-modules-fold0", "tables-loss_k-fold0", "tables-modules-fold1"),
    ):
        assert sorted(order, key=names.index) == list(order)


def test_tables_need_real_pictures_and_weights(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("METAL8_ROOT", raising=False)
    with pytest.raises(UserError, match="--data-root and --weights"):
        gpu_tables.tasks(options("--out", str(tmp_path)))


def test_runs_side_by_side_need_a_launcher(tmp_path: Path) -> None:
    (task, *_) = gpu_tables.tasks(options("--out", str(tmp_path), "--quick", "--jobs", "4"))
    assert "hydra/launcher=joblib" in task.command
    assert "hydra.launcher.n_jobs=4" in task.command


def test_a_doctor_that_fails_ends_it_all_unless_told_otherwise(tmp_path: Path) -> None:
    def run(out: Path, *words: str) -> list[str]:
        failed = stages.Ended(stages.FAILED, 1)
        runner = Runner(**{"doctor": failed, "parity-fixtures": failed})
        words = ("--out", str(out), "--quick", "--device", "cpu", *words)
        with mock.patch.object(stages, "in_child", runner):
            assert stages.main("gpu_all", "", STAGES[:2], words) == stages.INCOMPLETE
        return runner.ran

    assert run(tmp_path / "one") == ["doctor"]
    assert run(tmp_path / "other", "--anyway") == ["doctor", "parity-fixtures"]


def test_an_archive_holds_what_is_small_and_is_gone_on_with(tmp_path: Path) -> None:
    out, unpacked = tmp_path / "out", tmp_path / "unpacked"
    work(out, Runner())
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "last.safetensors").write_bytes(b"large")
    with tarfile.open(stages.archive(out, tmp_path / "all.tar.gz")) as packed:
        assert sorted(packed.getnames()) == ["a.json", "b.json", "c.json", "stages.json"]
        packed.extractall(unpacked)
    (unpacked / "c.json").unlink()
    runner = Runner()
    work(unpacked, runner)
    assert runner.ran == ["c"]


# ------------------------------------------------------------------------------------------------- judgements


def device(**changes: Any) -> dict[str, np.ndarray]:
    found = {
        "losses": np.array([[0.7, 0.6, 0.94], [0.69, 0.59, 0.926]]),
        "gradient/a": np.array([3.0, 4.0], np.float32),
        "gradient/b": np.array([1e-9], np.float32),
        "parameter/a": np.array([1.0, 2.0], np.float32),
        "parameter/b": np.array([0.0], np.float32),
    }
    return {**found, **changes}


def test_what_the_gpu_computes_is_held_against_the_cpu() -> None:
    found = gpu_parity.compare(device(), device(**{"gradient/a": np.array([3.0, 4.1], np.float32)}))
    assert found["worst_gradient"] == "a"
    assert found["worst"]["gradients"] == pytest.approx(0.02, rel=1e-4)
    assert found["gradients"]["a"]["norm_cpu"] == 5.0
    assert gpu_parity.within_bounds(found["worst"])["gradients"] is False


def test_a_gradient_that_vanishes_is_compared_on_the_scale_of_all() -> None:
    found = gpu_parity.compare(device(), device(**{"gradient/b": np.array([2e-9], np.float32)}))
    assert all(gpu_parity.within_bounds(found["worst"]).values())


@pytest.mark.parametrize("value", [float("nan"), 0.1])
def test_losses_that_are_wrong_or_not_numbers_do_not_pass(value: float) -> None:
    losses = device()["losses"].copy()
    losses[0, 0] = value
    worst = gpu_parity.compare(device(), device(losses=losses))["worst"]
    assert gpu_parity.within_bounds(worst)["first losses"] is False


def test_benchmarks_come_to_a_row_each(tmp_path: Path) -> None:
    side = {"summary_seconds": {"median": 2.0}, "summary_row_seconds": {"median": 1.0}, "gpu_bytes": [5]}
    record = {
        "workload": {"batch": 2, "precision": "tf32"},
        "images_per_second": {"project": 30.0, "reference": 10.0},
        "sides": {"project": side, "reference": {**side, "gpu_bytes": []}},
    }
    (tmp_path / "step-vgg16-tf32.json").write_text(json.dumps(record))
    (row,) = gpu_benchmarks.summary(tmp_path)
    assert row["ratio"] == 3.0
    assert row["seconds"]["project"] == 1.0
    assert row["gpu_bytes"] == {"project": 5, "reference": None}


def test_what_is_kept_names_no_folder_of_the_machine() -> None:
    text = "<code>data.root=/mnt/sets/metal8 backbone.weights=/mnt/a/vgg16.safetensors fold=0</code>"
    short = "<code>data.root=metal8 backbone.weights=vgg16.safetensors fold=0</code>"
    assert gpu_tables.without_folders(text) == short
    assert gpu_tables.without_folders("backbone.weights=random, 2/3") == "backbone.weights=random, 2/3"


def test_a_curve_is_thinned_to_means() -> None:
    points = pd.DataFrame({"iteration": range(10), "loss": [float(n) for n in range(10)]})
    thinned = gpu_tables.thinned(points, most=4)
    assert list(thinned["iteration"]) == [2, 5, 8, 9]
    assert list(thinned["loss"]) == [1.0, 4.0, 7.0, 9.0]


@pytest.mark.slow
def test_all_of_it_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    """Without PyTorch all but the benchmarks, which are beside it."""
    torch = importlib.util.find_spec("torch") is not None
    chosen = [stage for stage in STAGES if torch or stage is not gpu_benchmarks.STAGE]
    words = ["--out", str(tmp_path), "--device", "cpu", "--quick", "--archive", str(tmp_path / "all.tar.gz")]
    short = ["--epochs", "1", "--evaluate-every", "1", "--seeds", "0", "--folds", "0", "--tables", "modules"]
    assert stages.main("gpu_all", "", chosen, [*words, *short]) == stages.COMPLETE
    assert json.loads((tmp_path / "doctor.json").read_text())
    assert json.loads((tmp_path / "parity.json").read_text())["passed"]
    if torch:
        rows = json.loads((tmp_path / "benchmarks.json").read_text())["rows"]
        assert {row["measurement"].partition("-")[0] for row in rows} == {"step", "evaluate", "largest"}
    kept = tmp_path / "results" / "embedded-modules"
    made = {"table.md", "table.csv", "report.html", "curves.csv", "losses.csv", "made.json"}
    assert {path.name for path in kept.iterdir()} == made
    assert stages.main("gpu_all", "", chosen, [*words, *short]) == stages.COMPLETE  # nothing is left to do
