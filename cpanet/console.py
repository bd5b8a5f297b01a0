"""The terminal: one console for all lines that a task prints, which its ``run.log`` keeps with their times."""

from __future__ import annotations

import codecs
import io
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, NewLine
from rich.control import Control

LOGGER = logging.getLogger("cpanet.terminal")
PLAINER = {"✓": "ok", "✗": "FAILED", "→": "->", "←": "<-", "×": "x", "−": "-", "–": "-", "±": "+/-"}
PLAINER.update({"…": "...", "│": "|"})


class Terminal(Console):
    """Prints, and hands every line to :data:`LOGGER`; lines said before there is a log come first in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._early: deque[str] = deque(maxlen=100)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except BrokenPipeError:  # of a rich that does not know on_broken_pipe
            self.on_broken_pipe()
        if not any(isinstance(part, (Control, NewLine)) for part in objects):  # how a progress bar moves
            self.keep(_plain(*objects, **options))

    def on_broken_pipe(self) -> None:
        """Act as at Ctrl-C once the reader of the lines has ended, as ``| head`` does: a run saves and says how to go on."""
        drop_output()
        signal.raise_signal(signal.SIGINT)

    def forget(self) -> None:
        """A command begins: what an earlier one of this process said has no place in its log."""
        self._early.clear()

    def keep(self, text: str) -> None:
        """Lines for the log alone, of what has been printed by other means."""
        self._early.extend(line.rstrip() for line in text.splitlines() if line.strip())
        if not any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
            return
        while self._early:
            LOGGER.info(self._early.popleft())


def _plain(*objects: Any, **options: Any) -> str:
    """The text as a wide terminal without colours shows it."""
    sheet = Console(file=io.StringIO(), width=500, color_system=None, highlight=False)
    sheet.print(*objects, **{**options, "soft_wrap": True})
    return str(sheet.file.getvalue())  # type: ignore[attr-defined]


console = Terminal(highlight=False, soft_wrap=True)


def replace_unencodable() -> None:
    """Let the terminal's encoding never end a program: what ASCII or Latin-1 lacks is printed as PLAINER, or as ``?``."""
    codecs.register_error("cpanet.plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="cpanet.plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAINER.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def log(text: str, style: str = "") -> None:
    """A line for the terminal; names of files and classes in it are taken as they are."""
    console.print(text, style=style, markup=False)


def program() -> str:
    """The program of this command line as a user types it: the installed command, or the file of a checkout."""
    begun = Path(sys.argv[0] if sys.argv else "")
    if begun.name == "cpanet":
        return "cpanet"
    return "python -m cpanet" if begun.parts[-2:] == ("cpanet", "__main__.py") else "python run.py"


def drop_output() -> None:
    """Discard everything that is still written to stdout, its buffer included."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


@contextmanager
def until_closed() -> Iterator[None]:
    """End quietly with status 1 where what reads stdout has ended."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        sys.exit(1)
