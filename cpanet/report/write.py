"""The files of a report: a summary as Markdown, LaTeX and CSV, set by pandas, and as a page; each is replaced whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from cpanet.files import write_atomically
from cpanet.report.page import page
from cpanet.report.pivot import Cell
from cpanet.report.sheets import Sheet, Text, remarks, sheets
from cpanet.report.statistics import Interval
from cpanet.report.summary import METRICS, Entry, Summary
from cpanet.report.table_spec import Overrides
from cpanet.report.values import ABSENT, PATHS


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


def _frame(sheet: Sheet, header: Callable[[str], str], cell: Callable[[Text, bool], str]) -> pd.DataFrame:
    """A sheet as strings; ``cell`` is told whether the text is a label."""
    rows = [[cell(text, i < sheet.labels) for i, text in enumerate(row)] for row in sheet.rows]
    return pd.DataFrame(rows, columns=[header(text) for text in sheet.headers], dtype=object)


# ---------------------------------------------------------------------- Markdown


def markdown(summary: Summary) -> str:
    """``table.md``."""
    parts = [f"# {_md(summary.title)}", _md(summary.settings)]
    for sheet in chain(*sheets(summary).values()):
        align = ["left"] * sheet.labels + ["right"] * (len(sheet.headers) - sheet.labels)
        table = _frame(sheet, _md, _md_cell).to_markdown(
            index=False, colalign=align if sheet.rows else None, disable_numparse=True
        )
        parts += [f"## {_md(sheet.title)}", table]
    parts += [f"- {_md(line)}" for line in remarks(summary)]
    parts += [f"[{i}] {_md(text)}" for i, text in enumerate(summary.footnotes, 1)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _md_cell(cell: Text, label: bool) -> str:
    """Labels may hold anything; numbers are our own, and stay readable as they are."""
    text = _md(cell.text) if label else cell.text.replace("*", r"\*")
    return text + "".join(f" [{number}]" for number in cell.footnotes)


# ---------------------------------------------------------------------- LaTeX

_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": r"$-$", "✓": r"\checkmark{}", "–": "--", "…": r"\dots{}", "†": r"\textdagger{}",
    "≡": r"$\equiv$", "Δ": r"$\Delta$", "·": r"$\cdot$", "×": r"$\times$", "→": r"$\rightarrow$", "*": r"$^{*}$",
    "▼": r"$\blacktriangledown$", "≥": r"$\geq$", "≤": r"$\leq$", '"': "''",
}  # fmt: skip


def latex(summary: Summary) -> str:
    """``table.tex``: booktabs; needs ``\\usepackage{booktabs,amssymb}``."""
    title, settings = _tex(summary.title), _tex(summary.settings)
    parts = [f"% {title}. {settings}", r"% \usepackage{booktabs,amssymb}"]
    notes = [_tex(line) for line in remarks(summary)]
    notes += [f"$^{{{i}}}$ {_tex(text)}" for i, text in enumerate(summary.footnotes, 1)]
    for sheet in chain(*sheets(summary).values()):
        align = "c" * sheet.labels + "r" * (len(sheet.headers) - sheet.labels)
        table = _frame(sheet, _tex, _tex_cell)
        if None in sheet.keys:  # a rule above the baselines
            table.iloc[sheet.keys.index(None), 0] = "\\midrule\n" + table.iloc[sheet.keys.index(None), 0]
        parts += [
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{title}. {_tex(sheet.title)}. {settings}.}}\n"
            + table.style.hide(axis="index").to_latex(column_format=align, hrules=True)
            + "\n".join(["", *(rf"\par\footnotesize {note}" for note in notes), r"\end{table}"])
        ]
    return "\n\n".join(parts) + "\n"


def _tex(text: str) -> str:
    """``text`` with nothing left that TeX would act on, in one line and without control characters."""
    line = " ".join(text.split())
    return "".join(_TEX.get(character, character) for character in line if character.isprintable())


def _tex_cell(cell: Text, label: bool) -> str:
    return _tex(cell.text) + (f"$^{{{','.join(map(str, cell.footnotes))}}}$" if cell.footnotes else "")


# ---------------------------------------------------------------------- CSV


def comma_separated(summary: Summary) -> str:
    """``table.csv``: a row a cell and epoch, the best epoch's first; plain numbers in percent."""
    entries = sorted(summary.entries.values(), key=lambda entry: entry.which)
    nothing = Entry((ABSENT,) * len(summary.pivot.axes), "", [Cell(())])  # for the columns of an empty table
    table = pd.DataFrame([_record(summary, entry) for entry in [*entries, nothing]], dtype=object)[:-1]
    table = table.apply(lambda column: column.map(_plain)).rename(columns=_inert)
    return table.to_csv(index=False, lineterminator="\n")


def _record(summary: Summary, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": entry.which}
    for axis, value in zip(summary.pivot.axes, entry.key):
        row[axis] = summary.pivot.label_of(axis, value) if axis in PATHS else str(value)
    row.update(status=entry.status, seeds=" ".join(map(str, entry.seeds)))
    for metric in METRICS:
        stat, difference = entry.score.get(metric), entry.difference.get(metric)
        row.update({f"{metric}_mean": stat and stat.mean, f"{metric}_sd": stat and stat.sd})
        row.update(_interval(f"{metric}_", difference))
        row[f"{metric}_excludes_zero"] = difference and int(difference.excludes_zero)
    row["baseline_miou"] = entry.baseline["miou"].mean if entry.baseline else None
    row.update(_interval("baseline_", entry.above))
    row["below_baseline"] = int(entry.below) if entry.baseline else None
    row["relation"] = entry.relation
    row["same_as"] = "; ".join(map(summary.pivot.label, entry.same_as))
    for source in summary.sources:
        published, comparable = entry.published.get(source.source, (None, None))
        for metric in METRICS:
            row[f"{source.source}: {metric}"] = published and str(getattr(published, metric) or "")
        row[f"{source.source}: comparable"] = None if comparable is None else int(comparable)
    row["remarks"] = "; ".join(summary.footnotes[i - 1] for i in entry.footnotes)
    return row


def _interval(prefix: str, found: Interval | None) -> dict[str, float | None]:
    return {f"{prefix}{name}": getattr(found, name, None) for name in ("difference", "low", "high")}


def _plain(value: Any) -> Any:
    """Four decimals, nothing for what is not there, and no text that a spreadsheet takes for a formula."""
    if value is None or isinstance(value, str):
        return _inert(value or "")
    return f"{value:.4f}" if isinstance(value, float) else value


def _inert(text: str) -> str:
    """Text that a spreadsheet will not take for a formula."""
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and text and not number else text


FILES = {"table.md": markdown, "table.csv": comma_separated, "table.tex": latex, "report.html": page}
