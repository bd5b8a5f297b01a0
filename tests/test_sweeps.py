"""Sweeps as commands: what varies, what runs once, what fails, what is left to do. Training is replaced by a record."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from cpanet.report import table_spec
from cpanet.sweep import lost_jobs
from cpanet.tasks.input_checks import check_parts
from tests.hydra_app import REPO, options, run_recorded
from tests.processes import python
from tests.sweep_runs import TINY, only, pretend, results

Jobs = list[tuple[Any, Path]]


def sweep(cwd: Path, *arguments: str, experiment: Any = pretend) -> tuple[int, Jobs, Path]:
    """``python run.py <arguments>``: exit status, jobs that ran, the sweep's directory."""
    status, jobs = run_recorded(cwd, *arguments, *TINY, experiment=experiment)
    return status, jobs, only(cwd / "outputs")


# ---------------------------------------------------------------------- the published tables


@pytest.mark.parametrize(
    ("name", "jobs", "ran"),
    [
        ("modules", 8, 8),
        # with vgg16_bn and one shot only the auxiliary loss of the last shot is no change
        ("protocol", 7, 6),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("loss_k", 6, 6), ("backbones", 3, 3), ("folds", 6, 6))
        ),
    ],
)
def test_a_published_table_is_one_command(name: str, jobs: int, ran: int, tmp_path: Path) -> None:
    arguments = [text for text in ("-m", f"sweep={name}", "seed=0") if name != "modules" or text != "-m"]
    kept = [t for t in TINY if not (name in ("backbones", "protocol") and t == "backbone=vgg16")]
    status, done = run_recorded(tmp_path, *arguments, *kept, experiment=pretend)
    table = table_spec.read(only(tmp_path / "outputs"))
    assert status == 0
    assert table is not None
    assert (table.name, table.seeds) == (name, [0])
    assert len(results(only(tmp_path / "outputs"))) == jobs
    assert len(done) == ran


def test_every_sweep_file_is_a_table_with_seeds_and_a_reference_in_its_axes() -> None:
    names = {path.stem for path in (REPO / "sweeps").glob("*.yaml")}
    assert names == options("sweep") == {"modules", "loss_k", "backbones", "protocol", "folds"}
    for name in names:
        import yaml

        table = table_spec.parse(yaml.safe_load((REPO / "sweeps" / f"{name}.yaml").read_text()), name)
        assert table.name == name
        assert table.seeds == [0, 1, 2]
        assert set(table.rows + table.columns) == set(table.axes)
        for key, value in table.reference.items():
            assert value in table.axes.get(key, [value])
        for source in table.published:
            assert source.conditions["data"] == "fssd12"
            for published in source.values:
                assert all(v in table.axes[k] or table.axes[k] == ["all"] for k, v in published.match.items())


def test_the_published_numbers_are_those_of_the_publications() -> None:
    import yaml

    values = yaml.safe_load((REPO / "sweeps" / "loss_k.yaml").read_text())["published"]
    jittor = {v["match"]["loss.k"]: (v["miou"], v["fb_iou"]) for v in values[0]["values"]}
    assert jittor[0.4] == (54.04, 72.43)
    assert jittor[0.0] == (48.58, 68.34)
    paper = {v["match"]["loss.k"]: (v["miou"], v["fb_iou"]) for v in values[1]["values"]}
    assert paper[0.4] == (66.0, 76.1)


def test_what_is_typed_wins_over_the_file(tmp_path: Path) -> None:
    _, jobs, directory = sweep(tmp_path, "-m", "sweep=modules", "ablation=cpp,full", "seed=3", "fold=0,1")
    assert {(c.ablation.name, c.fold, c.seed) for c, _ in jobs} == {
        (a, f, 3) for a in ("cpp", "full") for f in (0, 1)
    }
    table = table_spec.read(directory)
    assert table is not None
    assert table.axes == {"ablation": ["cpp", "full"], "fold": [0, 1]}
    assert (table.rows, table.columns, table.seeds) == (["ablation"], ["fold"], [3])


@pytest.mark.parametrize("typed", ["loss_k=0.2,0.3", "loss.k=0.2,0.3"])
def test_an_axis_is_overridden_by_its_group_or_its_key(typed: str, tmp_path: Path) -> None:
    _, jobs, directory = sweep(tmp_path, "-m", "sweep=loss_k", "seed=0", typed)
    assert [c.loss.k for c, _ in jobs] == [0.2, 0.3]
    table = table_spec.read(directory)
    assert table is not None
    assert table.axes == {"loss.k": [0.2, 0.3]}


def test_all_folds_are_those_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    _, jobs, directory = sweep(tmp_path, "-m", "sweep=folds", "seed=0", "shot=1")
    assert [c.fold for c, _ in jobs] == [0, 1, 2]
    table = table_spec.read(directory)
    assert table is not None
    assert (table.axes["fold"], table.mean_over) == ([0, 1, 2], "fold")


def test_two_tables_at_once_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_recorded(tmp_path, "-m", "sweep=modules,loss_k", *TINY)[0] == 2
    assert "one at a time" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


# ---------------------------------------------------------------------- ad hoc


def test_whatever_varies_becomes_a_table(tmp_path: Path) -> None:
    status, jobs, directory = sweep(tmp_path, "-m", "ablation=cpp,sa,ssa", "loss.k=0,0.2,0.4")
    table = table_spec.read(directory)
    assert table is not None
    assert (table.rows, table.columns) == (["ablation"], ["loss.k"])
    assert table.axes == {"ablation": ["cpp", "sa", "ssa"], "loss.k": [0, 0.2, 0.4]}
    assert table.reference == {"ablation": "cpp", "loss.k": 0.4}
    assert status == 0
    found = results(directory)
    assert len(found) == 9
    assert (
        len(jobs) == 9 - 2 - 2
    )  # without SA, k says nothing; sa at k = 0 is no module at all, unlike cpp and ssa


def test_folds_are_columns_with_their_mean_and_seeds_are_neither(tmp_path: Path) -> None:
    _, _, directory = sweep(tmp_path, "-m", "fold=0,1", "seed=1,2", "ablation=cpp,full")
    table = table_spec.read(directory)
    assert table is not None
    assert (table.rows, table.columns, table.mean_over, table.seeds) == (
        ["ablation"],
        ["fold"],
        "fold",
        [1, 2],
    )


# ---------------------------------------------------------------------- the same function once


def test_equal_functions_run_once_and_point_to_each_other(tmp_path: Path) -> None:
    _, jobs, directory = sweep(tmp_path, "-m", "ablation=cpp_ssa,full", "loss.k=0,0.4", "seed=0,1")
    assert len(jobs) == 2 * 2
    pointer = results(directory)["ablation=full,loss.k=0,seed=1"]
    assert pointer["status"] == "duplicate"
    original = (directory / "ablation=full,loss.k=0,seed=1" / pointer["duplicate_of"]).resolve()
    assert original.name == "ablation=cpp_ssa,loss.k=0,seed=1"
    assert pointer["config"]["ablation"]["name"] == "full"


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("error", [RuntimeError("diverged at 3"), MemoryError(), ValueError("x\ny")])
def test_a_failing_job_is_recorded_and_the_rest_goes_on(
    error: Exception, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails_once(checked: Any, run_dir: Path) -> float:
        if checked.ablation.name == "sa":
            raise error
        return pretend(checked, run_dir)

    status, jobs, directory = sweep(tmp_path, "-m", "ablation=cpp,sa,ssa,full", experiment=fails_once)
    found = results(directory)
    assert status == 1
    assert len(jobs) == 4
    assert {name: r["status"] for name, r in found.items()} == {
        "ablation=cpp": "completed",
        "ablation=sa": "failed",
        "ablation=ssa": "completed",
        "ablation=full": "completed",
    }
    assert type(error).__name__ in found["ablation=sa"]["reason"]
    assert found["ablation=sa"]["config"]["ablation"]["label"] == "SA"
    said = capfd.readouterr()
    assert "1 of 4 jobs failed:\n  ablation=sa: " in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in (directory / "ablation=sa" / "run.log").read_text()


def test_a_job_with_a_bad_value_fails_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, jobs, directory = sweep(tmp_path, "-m", "loss.k=0.2,-1,0.4")
    assert status == 1
    assert [c.loss.k for c, _ in jobs] == [0.2, 0.4]
    assert "loss.k = -1" in results(directory)["loss.k=-1"]["reason"]
    assert "loss.k = -1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["backbone=resnet50", "backbone.depth=99"], "depth = 99: must be one of 50, 101, 152"),
        (["ablation.decoder._target_=cpanet.models.MaskedAverage"], "must be a class that derives from"),
        (["ablation.prototype._target_=cpanet.models.Missing"], "there is no such class"),
        (["+recipe.optimizer._partial_=true"], "recipe.optimizer._partial_: unknown key"),
        (["backbone.weights=missing.safetensors"], "missing.safetensors"),
    ],
)
def test_what_no_job_can_be_made_of_is_refused_in_the_plan(
    typed: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, jobs = run_recorded(tmp_path, "-m", "data=embedded", "device=cpu", "seed=0,1", *typed)
    assert (status, jobs) == (2, [])
    assert says in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_plan_for_other_processes_leaves_the_environment_alone(tmp_path: Path) -> None:
    own = "+ablation.auxiliary.dropout=0.5"  # no option: Jittor starts
    words = ["run.py", "-m", "hydra/launcher=joblib", "seed=0,1", *TINY, own]
    ended = python(
        f"""
import os, runpy, sys
from cpanet import runtime
from cpanet.sweep import callback
def stop(*arguments):
    print(runtime.current() is not None, dict(os.environ) == before)
    raise KeyboardInterrupt
callback._directory, sys.argv = stop, {words!r}
os.environ.pop("NVIDIA_TF32_OVERRIDE", None)  # inherited, where these tests have started Jittor
before = dict(os.environ)
runpy.run_path({str(REPO / "run.py")!r}, run_name="__main__")
""",
        tmp_path,
    )
    assert ended.stdout.splitlines()[-1:] == ["True True"], ended.stderr


def test_a_job_whose_part_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    def build(checked: Any, run_dir: Path) -> float:
        check_parts(checked, head=True)
        return pretend(checked, run_dir)

    typed = "ablation.decoder._target_=cpanet.models.ConvDecoder,cpanet.models.MaskedAverage"
    status, _, directory = sweep(tmp_path, "-m", typed, experiment=build)
    completed, failed = results(directory).values()
    assert (status, completed["status"], failed["status"]) == (1, "completed", "failed")
    assert "must be a class that derives from" in failed["reason"]


def test_the_file_of_a_table_of_an_earlier_version_is_told_its_first_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own" / "sweep" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package hydra.callbacks.sweep.layout\nname: mine\n")
    status, jobs = run_recorded(tmp_path, "--config-dir", str(tmp_path / "own"), "-m", "sweep=mine", "seed=0")
    assert (status, jobs) == (2, [])
    assert "# @package hydra.callbacks.sweep.table" in capfd.readouterr().err


def test_an_interrupted_sweep_stops(tmp_path: Path) -> None:
    def interrupted(checked: Any, run_dir: Path) -> float:
        if checked.seed == 1:
            raise KeyboardInterrupt
        return pretend(checked, run_dir)

    status, jobs, directory = sweep(tmp_path, "-m", "seed=0,1,2", experiment=interrupted)
    assert status == 130
    assert [c.seed for c, _ in jobs] == [0, 1]
    assert list(results(directory)) == ["seed=0"]


# ---------------------------------------------------------------------- going on


def test_resume_runs_only_what_is_missing(tmp_path: Path) -> None:
    seen = []

    def fails_at_first(checked: Any, run_dir: Path) -> float:
        seen.append(checked.seed)
        if checked.seed in (1, 2) and seen.count(checked.seed) == 1:
            raise KeyboardInterrupt if checked.seed == 2 else RuntimeError("bad luck")
        return pretend(checked, run_dir)

    command = ("-m", "ablation=full,cpp", "seed=0,1,2")
    assert sweep(tmp_path, *command, experiment=fails_at_first)[0] == 130
    status, jobs, directory = sweep(tmp_path, *command, "resume=true", experiment=fails_at_first)
    assert status == 0
    assert [(c.ablation.name, c.seed) for c, _ in jobs] == [
        ("full", 1),
        ("full", 2),
        ("cpp", 0),
        ("cpp", 1),
        ("cpp", 2),
    ]
    assert {r["status"] for r in results(directory).values()} == {"completed"}
    assert sweep(tmp_path, *command, "resume=true")[1] == []


def test_the_same_directory_again_is_resumed_and_may_grow(tmp_path: Path) -> None:
    there = f"hydra.sweep.dir={tmp_path}/outputs/a=b,c"
    assert len(sweep(tmp_path, "-m", "seed=0,1", there)[1]) == 2
    assert [c.seed for c, _ in sweep(tmp_path, "-m", "seed=0,1,2", there)[1]] == [2]


def test_resume_takes_the_last_directory_of_the_same_sweep(tmp_path: Path) -> None:
    for _ in range(2):
        run_recorded(tmp_path, "-m", "seed=0,1", *TINY, experiment=pretend)
    first, second = sorted((tmp_path / "outputs").iterdir(), key=lambda path: len(path.name))
    (first / "seed=0" / "result.json").unlink()
    (second / "seed=1" / "result.json").unlink()
    _, jobs = run_recorded(tmp_path, "-m", "seed=0,1", *TINY, "resume=true", experiment=pretend)
    assert [run_dir for _, run_dir in jobs] == [second / "seed=1"]


def test_resume_without_a_beginning_begins(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(sweep(tmp_path, "-m", "seed=0,1", "resume=true")[1]) == 2
    assert "nothing to go on with" in capfd.readouterr().out


def test_results_of_another_configuration_are_not_touched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    there = f"hydra.sweep.dir={tmp_path}/outputs/here"
    sweep(tmp_path, "-m", "seed=0,1", there)
    before = (tmp_path / "outputs/here/seed=0/result.json").read_bytes()
    status, jobs, _ = sweep(tmp_path, "-m", "seed=0,1", "loss.k=0.2", there)
    assert (status, jobs) == (2, [])
    assert "loss.k = 0.2 (recorded: 0.4)" in capfd.readouterr().err
    assert (tmp_path / "outputs/here/seed=0/result.json").read_bytes() == before


# ---------------------------------------------------------------------- one run again


def test_a_run_goes_on_as_it_was_recorded(tmp_path: Path) -> None:
    _, [(begun, run_dir)] = run_recorded(tmp_path, "seed=3", "loss.k=0.3", *TINY)
    for again in (f"resume={run_dir}", f"resume={run_dir.relative_to(tmp_path)}"):
        _, [(checked, where)] = run_recorded(tmp_path, again, "data.workers=1", "seed=3")
        assert where == run_dir
        assert checked == begun.model_copy(update={"data": begun.data.model_copy(update={"workers": 1})})


def test_resume_true_is_the_last_run_of_the_same_command(tmp_path: Path) -> None:
    run_recorded(tmp_path, "seed=3", *TINY)
    _, [(begun, run_dir)] = run_recorded(tmp_path, "seed=3", *TINY)
    assert run_recorded(tmp_path, "seed=3", *TINY, "resume=true")[1] == [(begun, run_dir)]
    _, [(_, fresh)] = run_recorded(tmp_path, "seed=4", *TINY, "resume=true")
    assert fresh not in (run_dir, None)


def test_a_conflict_with_the_record_is_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, [(_, run_dir)] = run_recorded(tmp_path, "seed=3", *TINY)
    assert run_recorded(tmp_path, f"resume={run_dir}", "seed=4", "ablation=cpp") == (2, [])
    said = capfd.readouterr().err
    assert "seed = 4 (recorded: 3)" in said
    assert 'ablation.decoder._target_ = "cpanet.models.ConvDecoder" (recorded: ' in said


def test_what_is_no_run_directory_is_one_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("seed: ${oc.env:HOME}")
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("[]")
    for directory in ("missing", "run", "."):
        assert run_recorded(tmp_path, f"resume={directory}") == (2, [])
        assert capfd.readouterr().err.startswith("error: resume=")


def test_the_plan_names_every_job(tmp_path: Path) -> None:
    _, _, directory = sweep(tmp_path, "-m", "seed=0,1")
    planned = json.loads((directory / "jobs.json").read_text())
    assert [job["directory"] for job in planned["jobs"]] == ["seed=0", "seed=1"]


def test_planning_a_sweep_does_not_start_jittor() -> None:
    code = "import sys, cpanet.sweep.callback, cpanet.report.callback; sys.exit('jittor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0


# ---------------------------------------------------------------------- jobs that are lost with their processes


class Lost(RuntimeError):
    """In place of submitit's error."""


@pytest.mark.parametrize("said", ["", "loading\n\nepoch 1\n", "\n".join(map(str, range(100)))])
def test_a_lost_job_is_recorded_with_its_log_and_the_next_is_waited_for(said: str, tmp_path: Path) -> None:
    log = tmp_path / "1_0_log.out"
    log.write_text(said)
    lost_job = SimpleNamespace(
        submission=lambda: SimpleNamespace(args=(["seed=1"], "hydra.sweep.dir", 1)),
        paths=SimpleNamespace(stderr=tmp_path / "none", stdout=log),
    )

    def ask(job: Any) -> list[Any]:
        if job is lost_job:
            raise Lost
        return ["result"]

    def composed(overrides: Any) -> Any:
        assert overrides == ["seed=1"]
        hydra = {"sweep": {"dir": str(tmp_path), "subdir": "seed=1"}}
        return OmegaConf.create({"seed": 1, "loss": {"k": "${nothing}"}, "hydra": hydra})

    waited_for = lost_jobs.waiting_for_all(ask, Lost, composed)
    (returned,) = waited_for(lost_job)
    assert math.isnan(returned.return_value)
    assert waited_for("the next") == ["result"]
    record = results(tmp_path)["seed=1"]
    assert record["status"] == "failed"
    assert record["config"] == {"seed": 1, "loss": {"k": "${nothing}"}}
    assert f"(killed, or out of memory); {log}" in record["reason"]
    last = {"": "is empty", "l": "loading | epoch 1", "0": "97 | 98 | 99"}[said[:1]]
    assert record["reason"].endswith(last)


def test_a_job_that_was_lost_after_its_end_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "completed"}')
    lost_jobs.record(tmp_path, {}, None)
    assert json.loads((tmp_path / "result.json").read_text()) == {"status": "completed"}


def test_of_a_sweep_whose_processes_are_gone_those_that_had_begun_are_failed(tmp_path: Path) -> None:
    for name in ("done", "begun"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text("seed: 3\n")
        (tmp_path / name / "run.log").write_text("epoch 1\n")
    (tmp_path / "done" / "result.json").write_text('{"status": "completed"}')
    lost_jobs.record_begun(tmp_path, ["done", "begun", "not yet"])
    found = results(tmp_path)
    assert {name: result["status"] for name, result in found.items()} == {
        "done": "completed",
        "begun": "failed",
    }
    assert found["begun"]["config"] == {"seed": 3}
    assert found["begun"]["reason"].endswith("begun/run.log ends with: epoch 1")
