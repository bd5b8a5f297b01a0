"""The files of one run, each in one place, each written whole."""

from __future__ import annotations

import csv
import io
import resource
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cpanet
from cpanet.console import program
from cpanet.files import CannotWrite, remove_leftovers, write_atomically


class RunDirectory:
    """Paths and writers of a run directory.

    ``metrics.csv`` a row an evaluated epoch, ``episodes.csv`` a row a test episode of the best and of the last epoch,
    ``checkpoints/{best,last}.safetensors``, ``figures/``, ``result.json``, TensorBoard events at the top.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures = path / "figures"
        self.diverged = path / "diverged_batch.safetensors"  # of a loss or gradient that was not finite
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.safetensors"
        self.last = self.checkpoints / "last.safetensors"
        # the last before, should this one be damaged
        self.previous = self.checkpoints / "previous.safetensors"

    def create(self) -> None:
        """Make the folders; what a killed run began to write in them is removed."""
        try:
            for folder in (self.path, self.checkpoints, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(folder)
        except OSError as error:
            raise CannotWrite(
                f"{self.path} cannot be written ({error.strerror or error}). Free space or mend the folder."
            ) from error

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """``metrics.csv`` or ``episodes.csv`` anew from all rows."""
        if not rows:
            return
        columns = list(dict.fromkeys(key for row in rows for key in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / name, stream.getvalue().encode())

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run, quoted for the shell."""
        return f"{program()} {shlex.quote(f'resume={self.path}')}"


def episode_rows(
    which: str, epoch: int, results: Iterable[Any], names: Sequence[str], classes: Sequence[str]
) -> list[dict]:
    """Rows of ``episodes.csv`` for the ``which`` ("best" or "last") epoch; supports are joined by ``;``."""
    return [
        {
            "which": which,
            "epoch": epoch,
            "class": classes[result.episode.class_index],
            "query": names[result.episode.query],
            "supports": ";".join(names[i] for i in result.episode.supports),
            **result.counts._asdict(),
        }
        for result in results
    ]


def git_commit() -> str | None:
    """Commit of the source tree, with ``+`` where it has been changed since; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(cpanet.__file__).resolve().parent.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
