"""The jobs of a sweep, known before the first one starts: ``jobs.json`` in the sweep's directory.

Written once by the process that was started, read by whoever runs a job, on this machine or another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpanet.config.equivalence import fingerprint
from cpanet.files import write_atomically

FILE = "jobs.json"


@dataclass(frozen=True)
class Job:
    """One job: its directory below the sweep's, its overrides, and the job that computes the same, if one does."""

    directory: str
    overrides: tuple[str, ...]
    duplicate_of: str | None = None


@dataclass(frozen=True)
class Plan:
    """All jobs in order; ``count`` of them, where a sweeper decides on the way what they are (``jobs`` is empty then).

    ``parallel``: how many run at a time, as far as that is known.
    """

    jobs: tuple[Job, ...]
    count: int
    parallel: int = 1

    def job(self, directory: str) -> Job | None:
        """The job that runs in ``directory``, a name below the sweep's."""
        return next((job for job in self.jobs if job.directory == directory), None)


def mark_duplicates(jobs: Sequence[tuple[str, Sequence[str], Mapping[str, Any] | None]]) -> list[Job]:
    """Jobs of (directory, overrides, resolved configuration); the first of those that compute the same runs.

    A configuration that was refused (None) is nobody's duplicate: its job says why.
    """
    first: dict[str, str] = {}
    planned = []
    for directory, overrides, config in jobs:
        original = None
        if config is not None:
            original = first.setdefault(fingerprint(config), directory)
        planned.append(Job(directory, tuple(overrides), None if original == directory else original))
    return planned


def write(sweep: Path, plan: Plan) -> None:
    """``jobs.json``, anew."""
    write_atomically(sweep / FILE, (json.dumps(asdict(plan), indent=1) + "\n").encode())


def read(sweep: Path) -> Plan | None:
    """The plan of the sweep in a directory; None where there is none or it cannot be read."""
    try:
        found = json.loads((sweep / FILE).read_text(encoding="utf-8"))
        jobs = tuple(Job(j["directory"], tuple(j["overrides"]), j["duplicate_of"]) for j in found["jobs"])
        return Plan(jobs, int(found["count"]), int(found["parallel"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
