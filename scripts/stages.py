"""Work in small tasks that a later start goes on with: what is done is not done again, what fails is told, time is kept.

A stage is a list of tasks, each a command in a process of its own that leaves files in the output folder, and a judgement
of what they left. ``stages.json`` in that folder says of every task how it ended; it is rewritten after each.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from rich.console import Console

from benchmarks.measure import ROOT, write_json
from cpanet.errors import UserError

LEDGER = "stages.json"
DONE, FAILED, STOPPED = "done", "failed", "stopped"
COMPLETE, INCOMPLETE, UNFINISHED = 0, 1, 3  # exit statuses: all done; something failed; out of time
GRACE = 60.0  # seconds that a task has to save and end once it is asked to
SMALL = (".json", ".yaml", ".csv", ".md", ".html", ".log", ".txt")  # suffixes in an archive
LARGEST = 16 * 2**20  # bytes of a file in an archive
LINES = 15  # of a log that are shown when a task fails


@dataclass(frozen=True)
class Task:
    """A command; ``makes``: what it leaves when it is done; ``needs``: seconds below which it is not worth starting."""

    name: str
    command: tuple[str, ...]
    makes: Path
    needs: float = 60.0


@dataclass(frozen=True)
class Ended:
    """How a task ended."""

    status: str
    returncode: int | None = None


def python(module: str, *arguments: object) -> tuple[str, ...]:
    """``python -m module arguments``, with this Python."""
    return (sys.executable, "-m", module, *(str(a) for a in arguments))


def in_child(task: Task, log: Path, seconds: float) -> Ended:
    """Run a task in a process group of its own; when its time is over it is asked to save and end, then ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"$ {_shown(task.command)}\n".encode())
        stream.flush()
        child = subprocess.Popen(
            task.command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(None if seconds == float("inf") else max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            _end(child)
            return Ended(STOPPED, child.returncode)
        except BaseException:
            _end(child)
            raise
    return Ended(DONE if code == 0 else FAILED, code)


def _end(child: subprocess.Popen) -> None:
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


@dataclass
class Ledger:
    """``stages.json``: every task that was started, its command, when, for how long, how it ended."""

    path: Path
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, out: Path) -> Ledger:
        """The folder's, an empty one where there is none; UserError where it cannot be read."""
        path = out / LEDGER
        if not path.exists():
            return cls(path)
        try:
            return cls(path, json.loads(path.read_text())["tasks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}). Remove it, or take another --out.") from error

    def done(self, task: Task) -> bool:
        """Whether it has been done, by the same command, and what it made is there; another command is other work."""
        known = self.tasks.get(task.name, {})
        same = known.get("status") == DONE and known.get("command") == _shown(task.command)
        return same and task.makes.exists()

    def write(self, task: Task, **facts: Any) -> None:
        """Record a task, and save."""
        self.tasks[task.name] = {"command": _shown(task.command), **facts}
        write_json(self.path, {"tasks": self.tasks})


def _shown(command: Sequence[str]) -> str:
    """A command as it is typed: the path of the Python that runs it says nothing."""
    return shlex.join(["python" if word == sys.executable else word for word in command])


def work_through(tasks: Iterable[Task], out: Path, end: float, console: Console, stop: bool = False) -> int:
    """Every task that is not done, in order, until ``end`` (of time.monotonic); COMPLETE, INCOMPLETE or UNFINISHED.

    A task that fails does not keep the others from running, unless ``stop``.
    """
    ledger, failed = Ledger.of(out), False
    for task in tasks:
        if ledger.done(task):
            console.print(f"[dim]· {task.name}: done before[/]")
            continue
        left = end - time.monotonic()
        if left < task.needs:
            console.print(
                f"{task.name}: not started, it needs {task.needs:.0f} s and {max(left, 0):.0f} s are left. "
                "Start the same command again to go on."
            )
            return UNFINISHED
        ended = _run(task, out / "logs" / f"{task.name}.log", left, ledger, console)
        if ended.status == STOPPED:
            console.print(f"{task.name}: stopped, out of time. Start the same command again to go on.")
            return UNFINISHED
        failed = failed or ended.status == FAILED
        if failed and stop:
            break
    return INCOMPLETE if failed else COMPLETE


def _run(task: Task, log: Path, left: float, ledger: Ledger, console: Console) -> Ended:
    started, begin = time.strftime("%Y-%m-%dT%H:%M:%S"), time.monotonic()
    console.print(f"▸ {task.name}")
    ledger.write(task, status="running", started=started)
    ended = in_child(task, log, left)
    seconds = round(time.monotonic() - begin, 1)
    ledger.write(task, status=ended.status, started=started, seconds=seconds, returncode=ended.returncode)
    mark = {DONE: "[green]✓[/]", FAILED: "[red]✗[/]", STOPPED: "…"}[ended.status]
    console.print(f"{mark} {task.name}: {ended.status} in {seconds:.0f} s")
    if ended.status == FAILED:
        for line in last_lines(log):
            console.print(f"    {line}", markup=False, highlight=False)
    return ended


def last_lines(log: Path) -> list[str]:
    """The end of a log."""
    with suppress(OSError):
        return log.read_text(errors="replace").splitlines()[-LINES:]
    return []


def archive(out: Path, file: Path) -> Path:
    """Everything small below ``out`` in one file, which unpacked elsewhere can be gone on with."""
    temporary = file.with_name(f".{file.name}.tmp")
    with tarfile.open(temporary, "w:gz") as packed:
        for path in sorted(out.rglob("*")):
            if path.is_file() and path.suffix in SMALL and path.stat().st_size <= LARGEST and path != file:
                packed.add(path, path.relative_to(out))
    temporary.replace(file)
    return file


def read_json(path: Path) -> Any:
    """Its content; None where there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Stage:
    """A part of the whole. ``conclude`` says what the tasks' files come to and whether that is as it should be."""

    name: str
    description: str
    options: Callable[[argparse.ArgumentParser], None]
    tasks: Callable[[argparse.Namespace], list[Task]]
    conclude: Callable[[argparse.Namespace, Console], bool]
    gate: bool = False  # nothing after it is worth measuring where it fails


def parser(module: str, description: str, stages: Sequence[Stage]) -> argparse.ArgumentParser:
    """The command line of one stage or of several."""
    made = argparse.ArgumentParser(
        prog=f"python -m scripts.{module}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        conflict_handler="resolve",  # of stages that ask for the same
    )
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where everything is left")
    ends = "start nothing that would end later; no limit"
    made.add_argument("--minutes", type=float, metavar="N", help=ends)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to rehearse")
    made.add_argument("--quick", action="store_true", help="everything at tiny sizes: to rehearse")
    made.add_argument("--archive", type=Path, metavar="FILE", help="pack all small results into this .tar.gz")
    made.add_argument("--anyway", action="store_true", help="go on after a stage that failed")
    for stage in stages:
        stage.options(made)
    return made


def data_options(made: argparse.ArgumentParser) -> None:
    """Where real pictures and real features are."""
    root = os.environ.get("METAL8_ROOT")
    made.add_argument("--data-root", default=root, metavar="DIR", help="folder of metal8")
    made.add_argument("--weights", metavar="FILE", help="ImageNet weights of VGG-16")


def main(module: str, description: str, stages: Sequence[Stage], argv: Sequence[str] | None = None) -> int:
    """Run stages one after the other; the exit status says whether all is done and as it should be."""
    options = parser(module, description, stages).parse_args(argv)
    options.out = options.out.resolve()
    console = Console(highlight=False, soft_wrap=True)
    end = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends what is under way
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        status = _stages(stages, options, end, console)
        if options.archive is not None:
            options.archive.parent.mkdir(parents=True, exist_ok=True)
            console.print(f"packed into {archive(options.out, options.archive.resolve())}")
    except OSError as error:
        print(f"error: {options.out}: {error.strerror or error}. Choose another --out.", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _stages(stages: Sequence[Stage], options: argparse.Namespace, end: float, console: Console) -> int:
    worst = COMPLETE
    planned = [(stage, stage.tasks(options)) for stage in stages]  # tells of a wrong request at once
    for stage, tasks in planned:
        console.rule(stage.name)
        status = work_through(tasks, options.out, end, console, stop=stage.gate)
        good = stage.conclude(options, console)  # shows what is there, also where more is to come
        if status == UNFINISHED:
            return UNFINISHED
        if status == INCOMPLETE or not good:
            worst = INCOMPLETE
            if stage.gate and not options.anyway and stage is not stages[-1]:
                console.print(
                    f"[red]{stage.name} failed: nothing after it would mean anything. --anyway goes on.[/]"
                )
                break
    return worst
