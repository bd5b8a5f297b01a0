"""The doctor's findings as JSON, rewritten whole after every check, so that a crash or a time limit keeps what was done."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpanet.doctor.checks import CheckResult
from cpanet.doctor.machine import without_folders
from cpanet.files import write_atomically

FORMAT = 1


class DoctorRecord:
    """The findings so far; ``path`` None keeps them in memory. ``part``: go on with what another process has written there.

    ``finished`` is False until everything was examined, ``ok`` None until then; ``running`` is the check under way.
    """

    def __init__(self, path: Path | None, part: bool = False) -> None:
        self.path, self.part = path, part
        self.data: dict[str, Any] = {
            "format": FORMAT,
            "finished": False,
            "ok": None,
            "running": None,
            "seconds": 0.0,
            "error": "",
            "device": None,
            "versions": {},
            "cuda": {},
            "precisions": {},
            "checks": [],
        }
        if part:
            self.read()

    def tell(self, **facts: Any) -> None:
        """Set entries of the record."""
        self.data.update(facts)
        if self.path is not None:
            text = json.dumps(self.data, indent=1, ensure_ascii=False)
            write_atomically(self.path, f"{text}\n".encode())

    def read(self) -> None:
        """Take over what a process has written that goes on with this record."""
        if self.path is not None:
            self.data = json.loads(self.path.read_text())

    def start(self, name: str, precision: str) -> None:
        """A check begins."""
        self.tell(running={"name": name, "precision": precision})

    def add(self, result: CheckResult, precision: str) -> None:
        """A check has ended."""
        row = {
            "name": result.name,
            "precision": precision,
            **asdict(result),
            "seconds": round(result.seconds, 3),
        }
        plain = {
            key: without_folders(value) if isinstance(value, str) else value for key, value in row.items()
        }
        self.data["checks"].append(plain)
        self.end(precision, finished=False)

    def end(self, precision: str, finished: bool = True) -> None:
        """All that is to be examined at ``precision`` was."""
        rows = [row for row in self.data["checks"] if row["precision"] == precision]
        failed = sum(not row["ok"] for row in rows)
        self.data["precisions"][precision] = {
            "ok": failed == 0 if finished else None,
            "finished": finished,
            "checks": len(rows),
            "failed": failed,
            "seconds": round(sum(row["seconds"] for row in rows), 3),
        }
        self.tell(running=None)

    def finish(self, seconds: float, error: str = "") -> bool:
        """The end; True where all is as it should be. Of a part its error alone: the whole is still to be judged."""
        error = without_folders(error)
        if self.part:
            self.tell(error=error)
            return not error
        precisions = self.data["precisions"].values()
        ok = not error and bool(precisions) and all(p["ok"] for p in precisions)
        self.tell(finished=True, ok=ok, running=None, seconds=round(seconds, 3), error=error)
        return ok
