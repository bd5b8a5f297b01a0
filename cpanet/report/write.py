"""The files of a report, each replaced whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpanet.files import write_atomically
from cpanet.report.page import page
from cpanet.report.summary import Summary, summarise
from cpanet.report.table import comma_separated, latex, markdown

FILES = {"table.md": markdown, "table.csv": comma_separated, "table.tex": latex, "report.html": page}


def write_report(directories: Sequence[Path], output: Path) -> Summary:
    """Write ``table.md``, ``.csv``, ``.tex`` and ``report.html`` of these sweeps into ``output``.

    Raises OSError where ``output`` cannot be written to.
    """
    summary = summarise(directories)
    output.mkdir(parents=True, exist_ok=True)
    for name, render in FILES.items():
        write_atomically(output / name, render(summary).encode("utf-8", "replace"))
    return summary
