"""A line when a job starts and one when it ends: how many are done, how many failed, how long the rest takes."""

from __future__ import annotations

import threading
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cpanet.sweep import results
from cpanet.sweep.plan import Plan

LOOK_EVERY = 2.0  # seconds


class Progress:
    """Lines of one job. What the others have done is read from their directories, whoever runs them."""

    def __init__(self, sweep: Path, plan: Plan, number: int, name: str) -> None:
        self._sweep, self._plan = sweep, plan
        self._head = f"[{number + 1}/{plan.count}] {name}"
        self._console = Console(highlight=False, soft_wrap=True)

    def started(self) -> None:
        self._print("bold", f"{self._head}: starting ({self._state()})")

    def completed(self, score: float) -> None:
        self._print("green", f"{self._head}: best mIoU {score:.4f} ({self._state()})")

    def skipped(self, score: float) -> None:
        self._print("dim", f"{self._head}: best mIoU {score:.4f}, completed before")

    def duplicate(self, original: str) -> None:
        self._print("dim", f"{self._head}: computes the same as {original}, which is run once for both")

    def failed(self, reason: str) -> None:
        self._print("red", f"{self._head}: failed: {reason} ({self._state()})")

    def _print(self, style: str, line: str) -> None:
        self._console.print(escape(line), style=style)

    def _state(self) -> str:
        found = results.tally(self._sweep, [job.directory for job in self._plan.jobs])
        parts = [f"{found.completed + found.duplicates} done", f"{len(found.failed)} failed"]
        failed = {name for name, _ in found.failed}  # duplicates of failed jobs among them
        own = [job for job in self._plan.jobs if job.duplicate_of is None and job.directory not in failed]
        left = len(own) - found.completed
        if self._plan.jobs:
            parts.append(f"{left} to go")
        if found.completed and left > 0:
            each = found.seconds / found.completed
            parts.append(f"about {duration(each * left / min(left, self._plan.parallel))}")
        return ", ".join(parts)


class Watch:
    """Lines about jobs that run on other machines: these write theirs into logs of their own."""

    def __init__(self, sweep: Path, plan: Plan) -> None:
        self._sweep, self._plan = sweep, plan
        self._before = {job.directory for job in plan.jobs if results.read(sweep / job.directory)}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10 * LOOK_EVERY)

    def _look(self) -> None:
        last = False
        while not last:
            last = self._ended.wait(LOOK_EVERY)
            for number, job in enumerate(self._plan.jobs):
                result = results.read(self._sweep / job.directory)
                if result is None or job.directory in self._before:
                    continue
                self._before.add(job.directory)
                line = Progress(self._sweep, self._plan, number, job.directory)
                if result.get("status") == "completed":
                    line.completed(results.score(result))
                elif result.get("status") == "duplicate":
                    line.duplicate(Path(str(result.get("duplicate_of"))).name)
                else:
                    line.failed(str(result.get("reason") or result.get("status")))


def duration(seconds: float) -> str:
    """``3725`` → ``1 h 2 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{60 * minutes + rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
