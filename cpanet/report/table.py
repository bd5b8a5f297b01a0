"""A summary as sheets of text, and these as Markdown, LaTeX and CSV.

Every sheet belongs to the best or to the last epoch; a sheet a metric with the layout's columns first, where it has
any, then a sheet with every cell as a row: differences, intervals, published values.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cpanet.report import floor
from cpanet.report.collect import FLOOR, WHICH
from cpanet.report.labels import MEAN, axis_label, module_marks, phrase, value_label
from cpanet.report.summary import Difference, Entry, Floor, Published, Stat, Summary
from cpanet.report.values import Key

METRICS = {"miou": "mIoU", "fb_iou": "FB-IoU"}
EPOCHS = {
    "best": "Best epoch (chosen on the test classes, as the publications do)",
    "last": "Last epoch",
}
PENDING = "…"
BELOW = "▼"


class Text(NamedTuple):
    """A cell's text and the footnotes that hang on it; ``kind`` is for the page's colours."""

    text: str
    footnotes: tuple[int, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table of text: the first ``labels`` columns name the row."""

    title: str
    which: str
    labels: int
    headers: list[str]
    rows: list[list[Text]]
    keys: list[Key]  # a row's cell, or its row key in a grid
    floors: list[list[Text]]  # rows of the training-free floor, below the others


def sheets(summary: Summary) -> list[Sheet]:
    """All sheets, the best epoch's first."""
    found = []
    for which in WHICH:
        if summary.arrangement.columns:
            found += [_grid(summary, which, metric) for metric in METRICS]
        found.append(_list(summary, which))
    return found


def remarks(summary: Summary) -> list[str]:
    """The sentences under the sheets: how to read them, what is not comparable, the noise floor."""
    reference = next((e.key for e in summary.entries.values() if e.relation == "reference"), None)
    lines = ["Percent; mean ± standard deviation over seeds (number of seeds)."]
    compared = any(entry.miou_difference for entry in summary.entries.values())
    if reference is not None and compared:
        several = len({e.key for e in summary.entries.values() if e.relation == "reference"}) > 1
        name = ", ".join(
            phrase(axis, value, summary.arrangement.values[axis])
            for axis, value in zip(summary.arrangement.axes, reference)
            if axis in summary.arrangement.reference
        )
        name = (name + ", other things equal" if several else name) or summary.label(reference)
        lines.append(
            f"Δ: difference to the reference ({name}) with its 95 % interval, from a paired bootstrap over test episodes "
            "within classes and over seeds; * where it excludes 0. ≡ marks a row that computes the reference's function."
        )
        marks = sum(e.miou_difference is not None for e in summary.entries.values() if e.which == "best")
        if marks >= 5:
            lines.append(
                f"Each interval stands alone: of {marks} without any effect, {marks / 20:.1f} would be marked by chance."
            )
        if any(e.miou_difference and len(e.seeds) == 1 for e in summary.entries.values()):
            lines.append(
                "Where a row has one seed, its interval covers the choice of test episodes, not training noise: "
                "a mark there does not say that another seed would agree."
            )
    if any(entry.floor for entry in summary.entries.values()):
        lines.append(
            "Floor: prototype comparison of the same frozen features on the same test episodes, without any training. "
            f"Δ floor: above it, with the paired 95 % interval, * where that excludes 0; {BELOW} marks a row below it."
        )
    for mark, source in zip(_source_marks(summary), summary.sources):
        lines.append(
            f"Published{mark}: {source.source}; in brackets the difference of this table's best epoch."
        )
    if summary.noise:
        lines.append(f"Noise floor: {summary.noise}")
    return [*lines, *summary.notes]


# ---------------------------------------------------------------------- sheets


def _grid(summary: Summary, which: str, metric: str) -> Sheet:
    arrangement = summary.arrangement
    columns = summary.columns()
    headers = [*_label_headers(summary, arrangement.rows), *(_column_header(summary, key) for key in columns)]
    rows, keys = [], arrangement.row_keys()
    for row in keys:
        cells = [Text(text) for text in _labels(summary, arrangement.rows, row)]
        cells += [_score(summary.entry(row, column, which), metric, True) for column in columns]
        rows.append(cells)
    labels = len(headers) - len(columns)
    return Sheet(
        f"{METRICS[metric]}, {EPOCHS[which][0].lower()}{EPOCHS[which][1:]}",
        which,
        labels,
        headers,
        rows,
        keys,
        _grid_floors(summary, which, metric),
    )


def _grid_floors(summary: Summary, which: str, metric: str) -> list[list[Text]]:
    """The floor under every column; a row a set of rows that share them."""
    arrangement, columns = summary.arrangement, summary.columns()
    floors = {
        row: [e.floor if (e := summary.entry(row, column, which)) else None for column in columns]
        for row in arrangement.row_keys()
    }
    complete = max(sum(f is not None for f in found) for found in floors.values())
    # a row that is still to come, in part or altogether, has no floor of its own
    known = {
        row: tuple(f.scores if f else None for f in found)
        for row, found in floors.items()
        if complete and sum(f is not None for f in found) == complete
    }
    rows = []
    for keys in floor.alike(known).values():
        labels = _floor_labels(summary, arrangement.rows, floor.common(keys, list(known)))
        stats = [getattr(f, metric) if f else None for f in floors[keys[0]]]
        cells = (Text("" if stat is None else f"{_mean_sd(stat)} ({stat.n})", kind=FLOOR) for stat in stats)
        rows.append([*labels, *cells])
    return rows


def _floor_labels(summary: Summary, axes: Sequence[str], key: Key) -> list[Text]:
    texts: list[str] = []
    for axis, value in zip(axes, key):
        if value == "":
            texts += ["", "", ""] if _as_modules(summary, axis) else [""]
        else:
            texts += _labels(summary, [axis], (value,))
    first, *rest = texts or [""]
    return [Text(f"{first}, {floor.NAME}" if first else floor.NAME), *(Text(text) for text in rest)]


def _list(summary: Summary, which: str) -> Sheet:
    axes = [*summary.arrangement.rows, *summary.arrangement.columns]
    labels = _label_headers(summary, axes)
    headers = [*labels, "seeds", "mIoU", "FB-IoU"]
    differences = any(
        e.miou_difference or e.relation for e in summary.entries.values() if e.relation != "reference"
    )
    sources = summary.sources if which == "best" else []
    if differences:
        headers += ["Δ mIoU [95 %]", "Δ FB-IoU [95 %]"]
    floors = {key: f for key in summary.keys if (f := summary.entries[key, which].floor) is not None}
    if floors:
        headers.append("Δ floor mIoU [95 %]")
    for mark, _ in zip(_source_marks(summary), sources):
        headers += [f"published{mark} mIoU", f"published{mark} FB-IoU"]
    rows = []
    for key in summary.keys:
        entry = summary.entries[key, which]
        cells = [Text(text) for text in _labels(summary, axes, summary.arrangement.part(key, axes))]
        cells.append(_seeds(entry))
        cells += [_score(entry, metric, False) for metric in METRICS]
        if differences:
            cells += [_difference(entry, metric) for metric in METRICS]
        if floors:
            cells.append(_above_floor(entry.floor))
        for source in sources:
            cells += [_published(entry.published.get(source.source), metric) for metric in METRICS]
        rows.append(cells)
    title = EPOCHS[which]
    if summary.arrangement.columns:
        title = f"Every cell, {title[0].lower()}{title[1:]}"
    return Sheet(
        title,
        which,
        len(labels),
        headers,
        rows,
        list(summary.keys),
        _list_floors(summary, axes, floors, len(headers)),
    )


def _list_floors(
    summary: Summary, axes: Sequence[str], floors: Mapping[Key, Floor], width: int
) -> list[list[Text]]:
    """A row a floor, filled up with empty cells to ``width``."""
    found = []
    for keys in floor.alike({key: f.scores for key, f in floors.items()}).values():
        shared = floor.common(keys, list(floors))
        miou, fb_iou = floors[keys[0]].miou, floors[keys[0]].fb_iou
        row = _floor_labels(summary, axes, summary.arrangement.part(shared, axes))
        row += [Text(str(miou.n)), *(Text(_mean_sd(stat), kind=FLOOR) for stat in (miou, fb_iou))]
        found.append(row + [Text("")] * (width - len(row)))
    return found


def _above_floor(found: Floor | None) -> Text:
    if found is None or found.difference is None:
        return Text("")
    kind = ("up" if found.difference.value > 0 else "down") if found.difference.marked else ""
    return Text(interval(found.difference), kind=kind)


def _source_marks(summary: Summary) -> list[str]:
    """What tells the columns of several sources apart."""
    if len(summary.sources) < 2:
        return [""] * len(summary.sources)
    return [f" ({chr(ord('a') + i)})" for i in range(len(summary.sources))]


def _label_headers(summary: Summary, axes: Sequence[str]) -> list[str]:
    headers = []
    for axis in axes:
        headers += ["CPP", "SA", "SSA"] if _as_modules(summary, axis) else [axis_label(axis)]
    return headers or ["runs"]


def _labels(summary: Summary, axes: Sequence[str], key: Key) -> list[str]:
    texts: list[str] = []
    for axis, value in zip(axes, key):
        marks = module_marks(value) if _as_modules(summary, axis) else None
        texts += marks or [value_label(axis, value, summary.arrangement.values[axis])]
    return texts or [summary.title]


def _as_modules(summary: Summary, axis: str) -> bool:
    values = summary.arrangement.values[axis]
    return axis == "ablation" and all(module_marks(value) is not None for value in values)


def _column_header(summary: Summary, key: Key) -> str:
    arrangement = summary.arrangement
    parts = [phrase(a, v, arrangement.values[a]) for a, v in zip(arrangement.columns, key)]
    return ", ".join(parts)


def _seeds(entry: Entry) -> Text:
    done = len(entry.seeds)
    text = str(done) if done == entry.asked else f"{done} of {entry.asked}"
    if done and entry.pending:
        text += f" {PENDING}"
    return Text(text, entry.footnotes)


def _score(entry: Entry | None, metric: str, alone: bool) -> Text:
    """A score; ``alone``: with the number of seeds, the mark and the footnotes that the list has in columns."""
    if entry is None:
        return Text("")
    stat: Stat | None = getattr(entry, metric)
    footnotes = entry.footnotes if alone else ()
    if stat is None:
        return (
            Text("failed", footnotes, "failed")
            if entry.status == "failed"
            else Text(PENDING, footnotes, "pending")
        )
    text = _mean_sd(stat)
    if alone:
        difference: Difference | None = getattr(entry, f"{metric}_difference")
        text += f" ({stat.n})" + ("*" if difference and difference.marked else "")
        text += " ≡" if entry.relation == "same" else ""
    if metric == "miou" and entry.floor is not None and entry.floor.below:
        text += f" {BELOW}"
    return Text(text, footnotes)


def _mean_sd(stat: Stat) -> str:
    return f"{stat.mean:.2f}" + ("" if stat.sd is None else f" ± {stat.sd:.2f}")


def _difference(entry: Entry, metric: str) -> Text:
    if entry.relation == "reference":
        return Text("reference", kind="quiet")
    difference: Difference | None = getattr(entry, f"{metric}_difference")
    same = "≡ " if entry.relation == "same" else ""
    if difference is None:
        return Text(same.strip() or ("–" if entry.miou else ""), kind="quiet")
    kind = ("up" if difference.value > 0 else "down") if difference.marked else ""
    return Text(same + interval(difference), kind=kind)


def interval(difference: Difference) -> str:
    """``−2.51* [−4.17, −0.84]``."""
    mark = "*" if difference.marked else ""
    return f"{signed(difference.value)}{mark} [{signed(difference.low)}, {signed(difference.high)}]"


def _published(published: Published | None, metric: str) -> Text:
    value = getattr(published, metric) if published else None
    if published is None or value is None:
        return Text("")
    difference = getattr(published, f"{metric}_difference")
    text = f"{value:.2f}" + ("" if difference is None else f" ({signed(difference)})")
    return Text(text if published.comparable else f"{text} †", kind="" if published.comparable else "quiet")


def signed(value: float) -> str:
    """Two decimals with a real minus; no sign on what rounds to zero."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


# ---------------------------------------------------------------------- Markdown


def markdown(summary: Summary) -> str:
    """``table.md``."""
    parts = [f"# {_md(summary.title)}", _md(summary.settings)]
    for sheet in sheets(summary):
        right = ["---" if i < sheet.labels else "---:" for i in range(len(sheet.headers))]
        lines = [_md_row([_md(header) for header in sheet.headers]), _md_row(right)]
        lines += [
            _md_row([_md_cell(cell, i < sheet.labels) for i, cell in enumerate(row)])
            for row in (*sheet.rows, *sheet.floors)
        ]
        parts += [f"## {_md(sheet.title)}", "\n".join(lines)]
    parts += [f"- {_md(line)}" for line in remarks(summary)]
    parts += [f"[{i}] {_md(text)}" for i, text in enumerate(summary.footnotes, 1)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _md_cell(cell: Text, escaped: bool) -> str:
    """Labels may hold anything; numbers are our own, and stay readable as they are."""
    text = _md(cell.text) if escaped else cell.text.replace("*", r"\*")
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
    parts = [f"% {tex(summary.title)}. {tex(summary.settings)}", r"% \usepackage{booktabs,amssymb}"]
    for sheet in sheets(summary):
        align = "c" * sheet.labels + "r" * (len(sheet.headers) - sheet.labels)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(summary.title)}. {tex(sheet.title)}. {tex(summary.settings)}.}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(tex(header) for header in sheet.headers) + r" \\",
            r"\midrule",
            *(_tex_row(row) for row in sheet.rows),
            *([r"\midrule", *(_tex_row(row) for row in sheet.floors)] if sheet.floors else []),
            r"\bottomrule",
            r"\end{tabular}",
            "",
            *(rf"\par\footnotesize {tex(line)}" for line in remarks(summary)),
            *(rf"\par\footnotesize $^{{{i}}}$ {tex(text)}" for i, text in enumerate(summary.footnotes, 1)),
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _tex_row(row: Sequence[Text]) -> str:
    return " & ".join(tex(cell.text) + _tex_notes(cell) for cell in row) + r" \\"


def tex(text: str) -> str:
    """``text`` with nothing left that TeX would act on."""
    return "".join(_TEX.get(character, character) for character in _line(text))


def _line(text: str) -> str:
    """One line, without control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _tex_notes(cell: Text) -> str:
    return f"$^{{{','.join(map(str, cell.footnotes))}}}$" if cell.footnotes else ""


# ---------------------------------------------------------------------- CSV


def comma_separated(summary: Summary) -> str:
    """``table.csv``: a row a cell and epoch, plain numbers in percent."""
    axes = summary.arrangement.axes
    columns = ["epoch", *axes, "status", "seeds"]
    for metric in METRICS:
        columns += [f"{metric}_mean", f"{metric}_sd"]
        columns += [f"{metric}_difference", f"{metric}_low", f"{metric}_high", f"{metric}_excludes_zero"]
    columns += ["floor_miou", "floor_difference", "floor_low", "floor_high", "below_floor", "relation"]
    for source in summary.sources:
        columns += [f"{source.source}: {m}" for m in METRICS] + [f"{source.source}: comparable"]
    columns.append("remarks")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_inert(column) for column in columns])
    for which in WHICH:
        for key in summary.keys:
            writer.writerow([_inert(value) for value in _csv_row(summary, summary.entries[key, which])])
    return stream.getvalue()


def _csv_row(summary: Summary, entry: Entry) -> list:
    row: list = [entry.which, *entry.key, entry.status, " ".join(map(str, entry.seeds))]
    for metric in METRICS:
        stat: Stat | None = getattr(entry, metric)
        difference: Difference | None = getattr(entry, f"{metric}_difference")
        row += [_number(stat.mean), _number(stat.sd)] if stat else ["", ""]
        if difference:
            row += [_number(v) for v in (difference.value, difference.low, difference.high)]
            row.append(int(difference.marked))
        else:
            row += ["", "", "", ""]
    row += _csv_floor(entry.floor)
    row.append(entry.relation)
    for source in summary.sources:
        published = entry.published.get(source.source)
        row += ["" if published is None else getattr(published, m) for m in METRICS]
        row.append("" if published is None else int(published.comparable))
    row.append("; ".join(summary.footnotes[i - 1] for i in entry.footnotes))
    return row


def _csv_floor(found: Floor | None) -> list:
    if found is None:
        return ["", "", "", "", ""]
    difference = found.difference
    values = (difference.value, difference.low, difference.high) if difference else (None, None, None)
    return [_number(found.miou.mean), *(_number(value) for value in values), int(found.below)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _inert(value: object) -> object:
    """Text that a spreadsheet will not take for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


__all__ = [
    "MEAN",
    "Sheet",
    "Text",
    "comma_separated",
    "latex",
    "markdown",
    "remarks",
    "sheets",
    "signed",
    "tex",
]
