"""Faults of real machines: nothing that was saved is lost, nothing hangs, one message says why it ended."""

from __future__ import annotations

import ast
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from safetensors.numpy import load_file

from cpanet import engine
from cpanet.checkpoint.files import read_checkpoint
from cpanet.errors import UserError
from cpanet.files import CannotWrite, write_atomically
from cpanet.records import tensorboard
from cpanet.records.tensorboard import TensorBoard
from cpanet.report.write import write_report
from tests.datasets import picture, save
from tests.hydra_app import run_here, run_recorded
from tests.processes import data_workers
from tests.shared import REPO
from tests.sweep_runs import TINY, only, pretend
from tests.whole_runs import OFTEN, RUN, assert_same_end, train


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Does something once, after a training step."""

    def arm(iteration: int, action: Callable[[], Any]) -> None:
        step, due = TensorBoard.step, True

        def stepping(self: Any, taken: Any) -> None:
            nonlocal due
            step(self, taken)
            if due and taken.iteration == iteration:
                due = False
                action()

        monkeypatch.setattr(TensorBoard, "step", stepping)

    return arm


# --------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """A disk that is full when a file of this name is written for the n-th time, and from then on."""
    fsync, seen = os.fsync, 0

    def fill(name: str, number: int) -> None:
        def full(fd: int) -> None:
            nonlocal seen
            seen += f".{name}." in os.readlink(f"/proc/self/fd/{fd}")
            if seen >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", full)

    return fill


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("last.safetensors", 3),
        ("episodes.csv", 1),
        pytest.param("last.safetensors", 1, marks=pytest.mark.slow),
        pytest.param("best.safetensors", 1, marks=pytest.mark.slow),
        pytest.param("metrics.csv", 2, marks=pytest.mark.slow),
    ],
)
def test_a_disk_full_at_any_file_costs_nothing_that_was_saved(
    name: str, number: int, disk: Any, undisturbed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(name, number)
    with pytest.raises(CannotWrite) as ended:
        train(tmp_path, OFTEN)
    message = str(ended.value)
    assert f"{name} cannot be written (No space left on device)" in message
    assert message.endswith(f"Then go on with: python run.py resume={tmp_path}")
    for path in tmp_path.rglob("*.safetensors"):
        read_checkpoint(path)
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert_same_end(undisturbed_run, tmp_path)


def test_a_disk_full_at_the_end_is_told_too(disk: Any, tmp_path: Path) -> None:
    disk("result.json", 1)
    with pytest.raises(CannotWrite, match=r"result\.json cannot be written"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [("full", "No space left on device"), ("no/such/folder", "No such file or directory")],
)
def test_a_run_goes_on_where_tensorboard_cannot_be_written(
    name: str, why: str, undisturbed_run: Path, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # whatever is written there meets a full disk
    monkeypatch.setattr(tensorboard, "next_name", lambda folder: name)
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", 0.0)
    train(tmp_path)
    assert capfd.readouterr().err.count(f"{why}); going on without them") == 1
    assert_same_end(undisturbed_run, tmp_path)


# --------------------------------------------------------------------- the output directory


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_an_output_directory_that_goes_away_is_one_message(
    instead: str, at_step: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def take_away() -> None:
        run.rename(tmp_path / "moved")
        if instead == "a file":
            run.touch()

    at_step(3, take_away)
    with pytest.raises(UserError, match="cannot be written"):
        train(run)


def test_what_was_moved_away_goes_on_elsewhere(at_step: Any, undisturbed_run: Path, tmp_path: Path) -> None:
    at_step(4, lambda: (tmp_path / "run").rename(tmp_path / "moved"))
    with pytest.raises(UserError, match="cannot be written"):
        train(tmp_path / "run", OFTEN)
    train(tmp_path / "moved", resume=True)
    assert_same_end(undisturbed_run, tmp_path / "moved")


def test_an_output_directory_that_is_a_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(CannotWrite, match=r"run cannot be written .*Free space or mend the folder"):
        train(tmp_path / "run")


def test_what_a_killed_run_began_to_write_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for path in (tmp_path / ".result.json.1-ab.tmp", tmp_path / "checkpoints" / ".last.safetensors.1-ab.tmp"):
        path.write_bytes(b"half")
    train(tmp_path)
    assert not list(tmp_path.rglob(".*.tmp"))


# --------------------------------------------------------------------- workers, clock, side by side


def test_a_killed_data_worker_changes_nothing(at_step: Any, undisturbed_run: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.extend(data_workers())
        for worker in killed:
            os.kill(worker, signal.SIGKILL)

    at_step(1, kill)
    train(tmp_path, "data.workers=2")
    assert len(killed) == 2
    assert_same_end(undisturbed_run, tmp_path)


def test_a_clock_that_is_set_back(
    at_step: Any, undisturbed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    now = time.time()

    def back() -> float:
        nonlocal now
        now -= 86400
        return now

    monkeypatch.setattr(time, "time", back)
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, OFTEN)
    train(tmp_path, resume=True)
    assert_same_end(undisturbed_run, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["wall_seconds"] > 0
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [point.step for point in board.Scalars("train/loss")] == list(range(6))


def test_a_sweep_and_a_report_at_the_same_time(tmp_path: Path) -> None:
    """Reports are written by another thread all the time; whoever reads one finds it whole."""
    ended, wrong = threading.Event(), []

    def report() -> None:
        while not ended.is_set():
            for sweep in tmp_path.glob("outputs/*"):
                try:
                    write_report([sweep], sweep)
                    page = (sweep / "report.html").read_text()
                    assert page.rstrip().endswith("</html>")
                except Exception as error:
                    wrong.append(error)
            ended.wait(0.3)  # the sweep wants the interpreter too

    thread = threading.Thread(target=report)
    thread.start()
    try:
        typed = ("-m", "loss.k=0,0.2", "seed=0,1", "data=embedded")
        status, jobs = run_recorded(tmp_path, *typed, experiment=pretend)
    finally:
        ended.set()
        thread.join(60)
    assert (status, len(jobs), wrong) == (0, 4, [])
    table = (only(tmp_path / "outputs") / "table.csv").read_text()
    assert table.count("\n") >= 3


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    contents = [bytes([n]) * 100_000 for n in range(4)]

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomically(tmp_path / "file", content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_bytes() in contents
    for thread in threads:
        thread.join(60)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --------------------------------------------------------------------- numbers


def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    total, steps = engine.gradient_sum, 0

    def infinite(optimizer: Any) -> Any:
        nonlocal steps
        steps += 1
        return total(optimizer) + (float("inf") if steps == 5 else 0.0)

    monkeypatch.setattr(engine, "gradient_sum", infinite)
    command = (*RUN, f"hydra.run.dir={tmp_path}/run")
    assert run_here(tmp_path, *command) == 2
    said = capfd.readouterr().err
    kept = tmp_path / "run" / "diverged_batch.safetensors"
    assert said.startswith("error: the gradient is not finite at iteration 4. Lower recipe.optimizer.lr")
    assert f"Its batch is kept in {kept}." in said
    assert "Traceback" not in said
    assert {k: v.shape for k, v in load_file(kept).items()} == {
        "query": (2, 3, 32, 32),
        "query_mask": (2, 32, 32),
        "support": (2, 1, 3, 32, 32),
        "support_mask": (2, 1, 32, 32),
    }
    _, state = read_checkpoint(kept)
    assert state["iteration"] == 4
    assert [len(names) for names in state["episodes"]] == [2, 2]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "diverged"


def test_all_background_is_a_warning_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def background(_: Any, mask: np.ndarray) -> engine.Counts:
        return engine.Counts(0, int(mask.sum()), int((mask == 0).sum()), mask.size)

    monkeypatch.setattr(engine, "episode_counts", background)
    train(tmp_path)
    assert capfd.readouterr().out.count("is predicted as background") == 1
    (warning,) = json.loads((tmp_path / "result.json").read_text())["warnings"]
    every = "after iteration 3 every pixel of the 4 test episodes is predicted as background."
    assert warning.startswith(every)
    assert "python -m cpanet.doctor" in warning


# --------------------------------------------------------------------- files


def test_a_run_writes_nothing_that_could_run(undisturbed_run: Path) -> None:
    plain = {".json", ".csv", ".png", ".safetensors", ".yaml", ".log"}
    for path in undisturbed_run.rglob("*"):
        if path.is_file():
            assert path.suffix in plain or path.name.startswith(tensorboard.PREFIX), path
            assert path.read_bytes()[:2] not in (b"PK", b"\x80\x04", b"\x80\x02", b"\x80\x05"), path


def test_names_like_markup_go_through_a_run_and_its_report(tmp_path: Path) -> None:
    root, names = tmp_path / "data", ("[bold]a", "<img src=x onerror=alert(1)>", "$x [ok]")
    for c, name in enumerate(names):
        for i in range(4):
            image, mask = picture(10 * c + i)
            file = f"{i}<script>alert({i})<b>[red]$^$"
            save(root / name / "Images" / f"{file}.png", image)
            save(root / name / "GT" / f"{file}.png", mask * 255)
    typed = [text for text in TINY if not text.startswith("data=")]
    folder = ("data=folder", f"data.root={root}", "fold=1", "log.overlays=1", "evaluate.episodes=2")
    assert run_here(tmp_path, *typed, *folder, f"hydra.run.dir={tmp_path}/run") == 0
    write_report([tmp_path / "run"], tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "&lt;img src=x" in page


# --------------------------------------------------------------------- no wait without a limit

WAITS = {"join", "wait", "get", "communicate", "result", "acquire"}  # without arguments: without a limit
WAITS_NOT = "HydraConfig.get()"
LIMITED = {"run", "check_output", "check_call", "urlopen"}  # need timeout=…


def unlimited(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that may wait for ever."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, module = node.func.attr, getattr(node.func.value, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        bare = name in WAITS and not node.args and not given
        endless = (module == "subprocess" or name == "urlopen") and name in LIMITED and "timeout" not in given
        lock = name == "flock" and "LOCK_NB" not in ast.unparse(node) and "LOCK_UN" not in ast.unparse(node)
        if bare or endless or lock:
            yield node.lineno


def test_every_wait_has_a_limit() -> None:
    example = "a.join()\nsubprocess.run(x)\nfcntl.flock(h, fcntl.LOCK_EX)\nurllib.request.urlopen(u)\nq.get()"
    assert list(unlimited(ast.parse(example))) == [1, 2, 3, 4, 5]
    found = []
    for path in [REPO / "run.py", *(REPO / "cpanet").rglob("*.py")]:
        text = path.read_text()
        lines = text.splitlines()
        found += [f"{path}:{line}" for line in unlimited(ast.parse(text)) if WAITS_NOT not in lines[line - 1]]
    assert found == []


# --------------------------------------------------------------------- real processes

LONG = (
    *TINY,
    "train.epochs=12",
    "train.iterations_per_epoch=10",
    "evaluate.every=6",
    "recipe.average.ema=0.9",
)
LIMIT = 300  # seconds for a process: none of them may hang


def process(*command: str, cwd: Path = REPO, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=cwd, **{**pipes, **options})


def wait_until_it_trains(started: subprocess.Popen[str]) -> None:
    assert started.stdout is not None
    while started.stdout.readline() not in ("started\n", ""):
        pass


def finish(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = started.communicate(timeout=LIMIT)
    finally:
        started.kill()
    return started.returncode, out, err


@pytest.mark.slow
def test_sigkill_at_twenty_moments(tmp_path: Path) -> None:
    """Ten at random moments, ten inside the writing of a checkpoint; after each the run goes on, to the same end."""
    a, b = tmp_path / "a", tmp_path / "b"
    assert finish(process("run.py", *LONG, f"hydra.run.dir={a}"))[0] == 0
    rng = random.Random(0)
    moments = ["never"] * 10 + ["half"] * 4 + ["whole"] * 3 + ["named"] * 3
    rng.shuffle(moments)
    start: tuple[str, ...] = (*LONG, OFTEN, f"hydra.run.dir={b}")
    reached = []
    for where in moments:
        killed = process("-m", "tests.faulty", where, str(rng.randint(1, 4)), *start)
        if where == "never":
            wait_until_it_trains(killed)
            time.sleep(rng.uniform(0, 1.0))
            killed.kill()
        assert finish(killed)[0] == -signal.SIGKILL, where
        last, previous = (b / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous"))
        for path in (last, previous):
            if path.exists():
                reached.append(read_checkpoint(path)[1]["progression"]["iteration"])
        start = (f"resume={b}", OFTEN)
    code, out, err = finish(process("run.py", *start))
    assert code == 0, out + err
    assert max(reached) < 120, "killed after its end"
    assert_same_end(a, b)
    assert not list(b.rglob("*.tmp"))


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a shell script with ``$D``, a file system of its own of ``size`` MB, which others do not see."""

    def run(script: str, size: int, **names: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("mounted")
        mount = f"mount -t tmpfs -o size={size}m tmpfs {folder} && D={folder} && {script}"
        environment = {**os.environ, **names, "P": sys.executable, "R": str(REPO / "run.py")}
        command, pipes = ["unshare", "-m", "sh", "-c", mount], {"capture_output": True, "text": True}
        return subprocess.run(command, env=environment, timeout=2 * LIMIT, **pipes)

    if shutil.which("unshare") is None or run("true", 1).returncode != 0:
        pytest.skip("this user may not mount file systems")
    return run


def test_a_read_only_output_directory(namespace: Any) -> None:
    ended = namespace("mount -o remount,ro $D && cd $D && exec $P $R device=cpu seed=1 profile=tiny", 1)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot create the run directory ")
    assert "Read-only file system. Free it, or start elsewhere." in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_disk_that_is_really_full(namespace: Any, undisturbed_run: Path, tmp_path: Path) -> None:
    """Room for two checkpoints and no third; then for more."""
    script = (
        '$P $R $RUN checkpoint.every_iterations=1 hydra.run.dir=$D/run; echo "status $?"; ls -A $D/run/checkpoints;'
        "mount -o remount,size=400m $D; $P $R resume=$D/run && cp -r $D/run $TO"
    )
    ended = namespace(script, 80, RUN=" ".join(RUN), TO=str(tmp_path / "copy"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "status 2" in ended.stdout
    assert "cannot be written (No space left on device). Free space or mend the folder" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert_same_end(undisturbed_run, tmp_path / "copy")


@pytest.mark.slow
def test_two_runs_started_in_the_same_second(tmp_path: Path) -> None:
    command = (str(REPO / "run.py"), *RUN)
    both = [process(*command, cwd=tmp_path) for _ in range(2)]
    assert [finish(one)[0] for one in both] == [0, 0]
    first, second = sorted((tmp_path / "outputs").iterdir())
    assert_same_end(first, second)


@pytest.mark.slow
def test_ctrl_c_twice_in_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[:1] = []\n"
    code += "from tests.faulty import main; main()"
    stopped = process("-c", code, "faulty", "never", "0", *LONG, "train.epochs=1000", f"hydra.run.dir={run}")
    wait_until_it_trains(stopped)
    time.sleep(1)
    stopped.send_signal(signal.SIGINT)
    stopped.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert finish(stopped)[0] in (-signal.SIGINT, 130)
    assert time.monotonic() - start < 20


def test_numbers_of_the_fault_tests_are_not_trivial(undisturbed_run: Path) -> None:
    """The values that the comparisons above compare are not all zeros."""
    tensors, state = read_checkpoint(undisturbed_run / "checkpoints" / "last.safetensors")
    assert state["progression"]["iteration"] == 6
    kept = [tensor for name, tensor in tensors.items() if name.startswith("optimizer.")]
    assert sum(map(np.count_nonzero, kept)) > 1000
