"""Sweeps that train: what a stop costs (nothing), what a diverging job costs (itself), memory over many jobs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas
import pytest

from cpanet.checkpoint.files import read_checkpoint
from cpanet.feature_cache import SharedFeatures
from cpanet.models import CPANet
from cpanet.training import run
from tests.hydra_app import REPO, run_here
from tests.sweep_runs import TINY, only, results, without_clock
from tests.test_resume import killed_after

SWEEP = ("-m", "ablation=cpp_ssa,full", "seed=0,1", "train.epochs=2", *TINY)


def assert_same_sweep(one: Path, other: Path) -> None:
    for name in ("table.csv", "sweep.yaml"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    a, b = results(one), results(other)
    assert {k: without_clock(v) for k, v in a.items()} == {k: without_clock(v) for k, v in b.items()}
    for name in a:
        for table in ("metrics.csv", "episodes.csv"):
            assert (one / name / table).read_bytes() == (other / name / table).read_bytes()


class Undisturbed(NamedTuple):
    """A sweep of four jobs in one process: its directory, and how often training images went through the backbone."""

    directory: Path
    passes: int


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    cwd = tmp_path_factory.mktemp("undisturbed")
    passes = []
    original = CPANet.episode_features

    def counted(self: CPANet, query: Any, support: Any) -> Any:
        passes.append(tuple(query.shape))
        return original(self, query, support)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CPANet, "episode_features", counted)
        patch.setattr(run, "SHARED", SharedFeatures())
        assert run_here(cwd, *SWEEP) == 0
    return Undisturbed(only(cwd / "outputs"), len(passes))


@pytest.fixture
def undisturbed(sweep: Undisturbed) -> Path:
    return sweep.directory


def test_training_images_go_through_the_backbone_once_a_seed(sweep: Undisturbed) -> None:
    assert sweep.passes == 2 * 2 * 2  # two steps in two epochs of two seeds, for both rows


def test_a_sweep_that_died_gets_the_table_of_one_that_did_not(undisturbed: Path, tmp_path: Path) -> None:
    with killed_after(5, False):  # in the third of four jobs, after its first epoch
        run_here(tmp_path, *SWEEP)
    assert len(results(only(tmp_path / "outputs"))) == 2
    assert run_here(tmp_path, *SWEEP, "resume=true") == 0
    assert_same_sweep(undisturbed, only(tmp_path / "outputs"))


def test_a_job_of_a_sweep_has_the_numbers_of_the_single_run(undisturbed: Path, tmp_path: Path) -> None:
    """Sharing of test images' and training images' features between runs changes no digit of any of them."""
    single = ("ablation=full", "seed=1", "train.epochs=2", *TINY, f"hydra.run.dir={tmp_path}/run")
    assert run_here(tmp_path, *single) == 0
    for table in ("metrics.csv", "episodes.csv"):
        assert (tmp_path / "run" / table).read_bytes() == (
            undisturbed / "ablation=full,seed=1" / table
        ).read_bytes()
    weights = "checkpoints/best.safetensors"
    mine, theirs = (
        read_checkpoint(p / weights)[0] for p in (tmp_path / "run", undisturbed / "ablation=full,seed=1")
    )
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_diverging_job_is_marked_and_the_others_have_their_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rates = "recipe.optimizer.lr=0.0005,0.001,1e30,0.002"
    command = ("-m", rates, "recipe.clip_grad_norm=null", "train.iterations_per_epoch=4", *TINY)
    assert run_here(tmp_path, *command) == 1
    said = capfd.readouterr()
    # weights of 1e28 overflow in one kernel or in another, as Jittor fuses them: gradient or next loss, both end the job
    assert re.search(
        r"1 of 4 jobs failed:\n  recipe\.optimizer\.lr=1e\+30: the (gradient|loss) is (not|nan|inf)", said.err
    )
    directory = only(tmp_path / "outputs")
    assert results(directory)["recipe.optimizer.lr=1e+30"]["status"] == "diverged"
    table = (directory / "table.md").read_text().split("## Last epoch")[0].splitlines()
    rows = [line.split(" | ") for line in table if line.startswith(("| 0.0", "| 1000"))]
    assert len(rows) == 4
    assert [row[2] == "failed" for row in rows] == [False, False, False, True]


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_sweep_costs_nothing(undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPO / "run.py"), *SWEEP]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("outputs/*/ablation=full,seed=0/checkpoints/last.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert len(results(only(tmp_path / "outputs"))) <= 3
    subprocess.run([*command, "resume=true"], cwd=tmp_path, check=True, timeout=300)
    assert_same_sweep(undisturbed, only(tmp_path / "outputs"))


@pytest.mark.slow
def test_ctrl_c_stops_a_sweep_with_its_table_written(tmp_path: Path) -> None:
    command = [sys.executable, str(REPO / "run.py"), *SWEEP, "train.epochs=200"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("outputs/*/*/checkpoints/last.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    typed = shlex.join([*SWEEP, "train.epochs=200", "resume=true"])
    assert (process.returncode, said) == (130, f"interrupted. To go on: python run.py {typed}\n")
    directory = only(tmp_path / "outputs")
    assert [r["status"] for r in results(directory).values()] == ["interrupted"]
    assert "interrupted" in (directory / "table.md").read_text()


@pytest.mark.slow
def test_memory_does_not_grow_over_twenty_jobs(tmp_path: Path) -> None:
    """Resident memory, open files and Jittor's variables after each job of one process."""
    seeds = ",".join(map(str, range(20)))
    after: list[dict[str, int]] = []

    import cpanet.tasks.train as experiment
    from cpanet.runtime import jt

    original = experiment.run

    def measured(*arguments: Any, **options: Any) -> float:
        score = original(*arguments, **options)
        after.append(
            {
                "resident": int(Path("/proc/self/statm").read_text().split()[1])
                * os.sysconf("SC_PAGESIZE")
                // 2**20,
                "files": len(os.listdir("/proc/self/fd")),
                "variables": jt.number_of_lived_vars(),
            }
        )
        return score

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "run", measured)
        assert run_here(tmp_path, "-m", f"seed={seeds}", *TINY, "data.workers=1") == 0
    frame = pandas.DataFrame(after)
    print(frame)
    early, late = frame[5:10].median(), frame[15:20].median()
    assert len(frame) == 20
    assert (
        late["resident"] - early["resident"] < 20
    )  # MiB in ten jobs; 11 come and go with what was allocated before
    assert late["files"] <= early["files"]
    assert late["variables"] <= early["variables"]
