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
    """The findings so far; ``path`` None keeps it in memory.

    ``finished`` is False until everything was examined, ``ok`` None until then; ``running`` is the check under way.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
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

    def tell(self, **facts: Any) -> None:
        """Set entries of the record."""
        self.data.update(facts)
        self.write()

    def start(self, name: str, precision: str) -> None:
        """A check begins."""
        self.tell(running={"name": name, "precision": precision})

    def add(self, result: CheckResult, precision: str) -> None:
        """A check has ended."""
        self.data["checks"].append(_row(result, precision))
        self.data["running"] = None
        self._count(precision)
        self.write()

    def end(self, precision: str) -> None:
        """All that is to be examined at ``precision`` was."""
        self._count(precision)
        summary = self.data["precisions"][precision]
        summary.update(finished=True, ok=summary["failed"] == 0)
        self.write()

    def take(self, other: dict[str, Any], precision: str) -> None:
        """The findings of a process that examines ``precision``, in the place of what was known of it."""
        kept = [row for row in self.data["checks"] if row["precision"] != precision]
        self.data["checks"] = kept + list(other["checks"])
        self.data["running"] = other["running"]
        if precision in other["precisions"]:
            self.data["precisions"][precision] = dict(other["precisions"][precision])
        self.write()

    def finish(self, seconds: float, error: str = "") -> bool:
        """The end; True where all is as it should be."""
        precisions = self.data["precisions"].values()
        ok = not error and bool(precisions) and all(p["ok"] for p in precisions)
        self.tell(finished=True, ok=ok, running=None, seconds=round(seconds, 3), error=without_folders(error))
        return ok

    def _count(self, precision: str) -> None:
        rows = [row for row in self.data["checks"] if row["precision"] == precision]
        self.data["precisions"][precision] = {
            "ok": None,
            "finished": False,
            "checks": len(rows),
            "failed": sum(not row["ok"] for row in rows),
            "seconds": round(sum(row["seconds"] for row in rows), 3),
        }

    def write(self) -> None:
        if self.path is not None:
            text = json.dumps(self.data, indent=1, ensure_ascii=False)
            write_atomically(self.path, f"{text}\n".encode())


def _row(result: CheckResult, precision: str) -> dict[str, Any]:
    row = {"name": result.name, "precision": precision, **asdict(result)}
    row["seconds"] = round(result.seconds, 3)
    return {key: without_folders(value) if isinstance(value, str) else value for key, value in row.items()}


def read_record(path: Path) -> dict[str, Any] | None:
    """The findings that another process has written so far; None before it wrote anything."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
