"""The files of a report, each replaced whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpanet.files import write_atomically
from cpanet.report.formats import comma_separated, latex, markdown
from cpanet.report.page import page
from cpanet.report.summary import Summary
from cpanet.report.table_spec import Overrides

FILES = {"table.md": markdown, "table.csv": comma_separated, "table.tex": latex, "report.html": page}


def write_report(directories: Sequence[Path], output: Path, reference: Overrides | None = None) -> Summary:
    """Write ``table.md``, ``.csv``, ``.tex`` and ``report.html`` of these sweeps into ``output``.

    ``reference``: the row to compare with, in place of the sweeps' own.

    Raises OSError where ``output`` cannot be written to.
    """
    summary = Summary(directories, reference)
    output.mkdir(parents=True, exist_ok=True)
    for name, render in FILES.items():
        write_atomically(output / name, render(summary).encode("utf-8", "replace"))
    return summary
