"""The same sweep by other launchers, and a search: run for real where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import yaml

from tests.hydra_app import REPO
from tests.sweep_runs import TINY, only, results

# numbers as options of groups, a refused job, and two that compute the same
SWEEP = ("-m", "fold=0,7", "loss_k=0,0.2", "ablation=cpp_ssa,full", *TINY)
SLURM = REPO / ".ci" / "slurm"


def run(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPO / "run.py"), *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep as the basic launcher runs it, on one thread, as the other launchers' jobs are."""
    cwd = tmp_path_factory.mktemp("basic")
    assert run(cwd, *SWEEP, OMP_NUM_THREADS="1").returncode == 1
    return only(cwd / "outputs")


def check(ended: subprocess.CompletedProcess[str], sweep: Path, reference: Path) -> None:
    """The tables and ends of ``reference``, number for number."""
    assert ended.returncode == 1, ended.stderr
    assert "4 of 8 jobs failed:" in ended.stderr
    assert "fold = 7: data set embedded has folds 0, 1, 2" in ended.stderr
    assert "UserWarning" not in ended.stderr
    assert {k: r["status"] for k, r in results(sweep).items()} == {
        k: r["status"] for k, r in results(reference).items()
    }
    pandas.testing.assert_frame_equal(
        pandas.read_csv(sweep / "table.csv"), pandas.read_csv(reference / "table.csv")
    )
    assert (sweep / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_two_jobs_at_a_time_on_one_machine(reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install '.[cluster]'")
    ended = run(tmp_path, *SWEEP, "hydra/launcher=joblib")
    check(ended, only(tmp_path / "outputs"), reference)
    assert ended.stdout.count(": starting (0 done") == 2


@pytest.mark.slow
def test_submitit_on_this_machine(reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[cluster]'")
    ended = run(tmp_path, *SWEEP, "hydra/launcher=submitit_local")
    check(ended, only(tmp_path / "outputs"), reference)
    assert "[1/8] ablation=cpp_ssa" in ended.stdout or "[1/8] fold=0" in ended.stdout


def with_a_lost_job(cwd: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Three jobs, of which the second kills its process."""
    command = [sys.executable, str(REPO / "tests" / "lost_jobs.py"), "-m", "seed=0,1,2", *TINY, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    sweep = only(cwd / "outputs")
    assert ended.returncode == 1, ended.stderr
    assert {k: r["status"] for k, r in results(sweep).items()} == {
        "seed=0": "completed",
        "seed=1": "failed",
        "seed=2": "completed",
    }
    assert "2 of 3 jobs completed" in ended.stdout
    assert "1 of 3 jobs failed:\n  seed=1: its process ended without a word (killed, or out of memory); " in (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr
    table = (sweep / "table.md").read_text()
    assert "2 of 3" in table
    assert "seed 1: failed: its process ended without a word" in table
    assert (sweep / "report.html").stat().st_size > 10_000
    return ended, sweep


def test_a_lost_process_of_joblib_is_a_failed_job(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install '.[cluster]'")
    ended, sweep = with_a_lost_job(tmp_path, "hydra/launcher=joblib")
    assert f"{sweep}/seed=1/run.log" in ended.stderr
    assert "resume=true runs what is missing" in ended.stderr


@pytest.mark.slow
def test_a_lost_process_of_submitit_is_a_failed_job(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[cluster]'")
    ended, sweep = with_a_lost_job(tmp_path, "hydra/launcher=submitit_local")
    assert f"{sweep}/.submitit/" in ended.stderr
    assert "ends with: " in ended.stderr
    assert "the last words" in ended.stderr


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm cluster: the one of this shell, else one of our own on this machine."""
    if "SLURM_CONF" in os.environ:
        yield {}
        return
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        why = f"no {', '.join(missing)}" if missing else "starting one takes root"
        pytest.skip(f"no Slurm cluster here ({why}); see .ci/slurm")
    started = subprocess.run([SLURM, "start"], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    try:
        yield {"SLURM_CONF": started.stdout.strip().partition("=")[2]}
    finally:
        subprocess.run([SLURM, "stop"], check=True, timeout=60)


@pytest.mark.slow
def test_a_slurm_cluster(slurm: dict[str, str], reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[cluster]'")
    one_cpu = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
    ended = run(tmp_path, *SWEEP, "hydra/launcher=submitit_slurm", *one_cpu, **slurm)
    sweep = only(tmp_path / "outputs")
    check(ended, sweep, reference)
    assert list(sweep.glob(".submitit/*/*_submission.sh"))


@pytest.mark.slow
def test_a_search_over_k(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install '.[optuna]'")
    search = ("-m", "hydra/sweeper=optuna", "loss.k=interval(-0.3,1)", "hydra.sweeper.n_trials=4")
    ended = run(tmp_path, *search, "hydra.sweeper.sampler.seed=3", *TINY)
    sweep = only(tmp_path / "outputs")
    found = results(sweep)
    assert len(found) == 4, ended.stderr
    scores = {
        r["config"]["loss"]["k"]: r["best"]["miou"] for r in found.values() if r["status"] == "completed"
    }
    assert ended.returncode == (
        1 if len(scores) < 4 else 0
    )  # a negative k is refused, and the search goes on
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(scores.values())
    assert best["best_params"]["loss.k"] in scores
    assert len((sweep / "table.csv").read_text().splitlines()) > 4


def test_a_launcher_that_is_not_installed_is_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.hydra_app import run_recorded

    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_submitit_launcher.submitit_launcher", None)
    assert run_recorded(tmp_path, "-m", "seed=0,1", "hydra/launcher=submitit_slurm", *TINY) == (2, [])
    assert "pip install '.[cluster]'" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()
