"""A summary as sheets of text, which Markdown, LaTeX and the page set each in its own way.

Every sheet belongs to the best or to the last epoch; a sheet a metric with the table's columns first, where it has
any, then a sheet with every cell as a row: differences, intervals, published values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cpanet.report.labels import MODULES, axis_label, module_marks
from cpanet.report.pivot import Pivot
from cpanet.report.runs import WHICH
from cpanet.report.statistics import Interval
from cpanet.report.summary import METRICS, Entry, Stat, Summary
from cpanet.report.values import Key

EPOCHS = {
    "best": "Best epoch (chosen on the test classes, as the publications do)",
    "last": "Last epoch",
}
PENDING, BELOW, SAME = "…", "▼", "≡"
BASELINE_NAME = "training-free baseline"


class Text(NamedTuple):
    """A cell's text and the footnotes that hang on it; ``kind`` is for the page's colours."""

    text: str
    footnotes: tuple[int, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table of text: the first ``labels`` columns name the row."""

    title: str
    labels: int
    headers: list[str]
    rows: list[list[Text]]
    keys: list[Key | None]  # a row's cell, or its row key in a grid; None of the baselines below


def sheets(summary: Summary) -> dict[str, list[Sheet]]:
    """All sheets, by epoch, the best first."""
    grids = METRICS if summary.pivot.columns else ()
    return {w: [*(_grid(summary, w, metric) for metric in grids), _list(summary, w)] for w in WHICH}


def remarks(summary: Summary) -> list[str]:
    """The sentences under the sheets: how to read them, what is not comparable, the noise of training."""
    entries = list(summary.entries.values())
    lines = ["Percent; mean ± standard deviation over seeds (number of seeds)."]
    if any(entry.difference for entry in entries):
        lines.append(
            f"Δ: difference to the reference ({_reference_name(summary)}) with its 95 % interval, from a paired bootstrap "
            "over test episodes within classes and over seeds; * where it excludes 0."
        )
        marks = sum(bool(entry.difference) for entry in entries if entry.which == "best")
        if marks >= 5:
            lines.append(
                f"Each interval stands alone: of {marks} without any effect, {marks / 20:.1f} would be marked by chance."
            )
        if any(entry.difference and len(entry.seeds) == 1 for entry in entries):
            lines.append(
                "Where a row has one seed, its interval covers the choice of test episodes, not training noise: "
                "a mark there does not say that another seed would agree."
            )
    if any(entry.same_as for entry in entries):
        lines.append(
            f"{SAME} marks every row that computes the same function as another; the last lines name them."
        )
    if any(entry.baseline for entry in entries):
        lines.append(
            "Training-free baseline: prototype comparison of the same frozen features on the same test episodes. "
            f"Δ baseline: above it, with the paired 95 % interval, * where that excludes 0; {BELOW} marks a row below it."
        )
    for mark, source in zip(_source_marks(summary), summary.sources):
        lines.append(
            f"Published{mark}: {source.source}; in brackets the difference of this table's best epoch."
        )
    if summary.noise:
        lines.append(f"Noise of training: {summary.noise}")
    return [*lines, *summary.notes]


def _reference_name(summary: Summary) -> str:
    keys = list(dict.fromkeys(e.key for e in summary.entries.values() if e.relation == "reference"))
    table = summary.pivot
    named = [(axis, value) for axis, value in zip(table.axes, keys[0]) if axis in table.reference]
    name = ", ".join(table.phrase(axis, value) for axis, value in named)
    return (name + ", other things equal" if len(keys) > 1 else name) or table.label(keys[0])


# ---------------------------------------------------------------------- sheets


def _grid(summary: Summary, which: str, metric: str) -> Sheet:
    table, columns = summary.pivot, summary.columns()
    labels = _label_headers(table, table.rows)
    headers = labels + [", ".join(map(table.phrase, table.columns, key)) for key in columns]
    keys = list(dict.fromkeys(key[: len(table.rows)] for key in table.cells))
    found = {row: [summary.entries.get((row + column, which)) for column in columns] for row in keys}
    rows = [
        [*_labels(table, table.rows, row, summary.title), *(_score(e, metric, True) for e in found[row])]
        for row in keys
    ]
    baselines = {row: [e.baseline if e else {} for e in entries] for row, entries in found.items()}
    # a row that is still to come, in part or altogether, has no baseline of its own
    complete = max(sum(map(bool, of_row)) for of_row in baselines.values())
    known = {
        row: of_row for row, of_row in baselines.items() if complete and sum(map(bool, of_row)) == complete
    }
    rows += [
        [*names, *(Text(f"{_mean_sd(b[metric])} ({b[metric].n})" if b else "") for b in of_row)]
        for names, of_row in _baseline_rows(table, table.rows, known)
    ]
    title = f"{METRICS[metric]}, {EPOCHS[which][0].lower()}{EPOCHS[which][1:]}"
    return Sheet(title, len(labels), headers, rows, [*keys, *[None] * (len(rows) - len(keys))])


def _list(summary: Summary, which: str) -> Sheet:
    table = summary.pivot
    entries = [summary.entries[key, which] for key in summary.keys]
    labels = _label_headers(table, table.axes)
    baselines = {e.key: [e.baseline] for e in entries if e.baseline}
    columns: list[tuple[str, Callable[[Entry], Text]]] = [("seeds", _seeds)]
    columns += [(name, partial(_score, metric=metric, alone=False)) for metric, name in METRICS.items()]
    if any(e.difference or e.relation == "unpaired" for e in summary.entries.values()):
        columns += [
            (f"Δ {name} [95 %]", partial(_difference, metric=metric)) for metric, name in METRICS.items()
        ]
    if baselines:
        columns.append(("Δ baseline mIoU [95 %]", lambda entry: _interval(entry.above)))
    for mark, source in zip(_source_marks(summary), summary.sources if which == "best" else ()):
        of_source = partial(_published, source=source.source)
        columns += [(f"published{mark} {name}", partial(of_source, metric=m)) for m, name in METRICS.items()]
    rows = [
        [*_labels(table, table.axes, entry.key, summary.title), *(cell(entry) for _, cell in columns)]
        for entry in entries
    ]
    for label, [score] in _baseline_rows(table, table.axes, baselines):
        known = [str(score["miou"].n), *map(_mean_sd, score.values())]
        rows.append([*label, *map(Text, known), *[Text("")] * (len(columns) - len(known))])
    title = EPOCHS[which]
    if table.columns:
        title = f"Every cell, {title[0].lower()}{title[1:]}"
    keys = [*summary.keys, *[None] * (len(rows) - len(entries))]
    return Sheet(title, len(labels), [*labels, *(header for header, _ in columns)], rows, keys)


def _baseline_rows(
    table: Pivot, axes: Sequence[str], baselines: Mapping[Key, list[dict[str, Stat]]]
) -> Iterable[tuple[list[Text], list[dict[str, Stat]]]]:
    """The training-free baselines of the rows, each once, below a label of what the rows that share it share alone."""
    alike: dict[tuple, list[Key]] = {}
    for key, of_row in baselines.items():
        # not by the number of seeds, which grows while a sweep runs
        same = tuple(tuple(round(stat.mean, 6) for stat in score.values()) for score in of_row)
        alike.setdefault(same, []).append(key)
    for keys in alike.values():
        texts: list[Text] = []
        for i, axis in enumerate(axes):
            own = len({key[i] for key in keys}) == 1 < len({key[i] for key in baselines})
            texts += [text if own else Text("") for text in _labels(table, [axis], keys[0][i : i + 1])]
        first, *rest = texts or [Text("")]
        name = f"{first.text}, {BASELINE_NAME}" if first.text else BASELINE_NAME
        yield [Text(name), *rest], baselines[keys[0]]


# ---------------------------------------------------------------------- labels and cells


def _source_marks(summary: Summary) -> list[str]:
    """Marks that tell the columns of several sources apart."""
    several = len(summary.sources) > 1
    return [f" ({chr(ord('a') + i)})" if several else "" for i in range(len(summary.sources))]


def _label_headers(table: Pivot, axes: Sequence[str]) -> list[str]:
    headers: list[str] = []
    for axis in axes:
        headers += [m.upper() for m in MODULES] if _as_modules(table, axis) else [axis_label(axis)]
    return headers or ["runs"]


def _labels(table: Pivot, axes: Sequence[str], key: Key, otherwise: str = "") -> list[Text]:
    """The values of ``key``; ``otherwise`` where there are no axes."""
    texts: list[str] = []
    for axis, value in zip(axes, key):
        text = table.label_of(axis, value)
        texts += (module_marks(text) if _as_modules(table, axis) else None) or [text]
    return [Text(text) for text in texts or [otherwise]]


def _as_modules(table: Pivot, axis: str) -> bool:
    """Whether the rows' labels are combinations of CPP, SA and SSA, each another one."""
    if axis != "ablation":
        return False
    marks = [module_marks(table.label_of(axis, value)) for value in table.values[axis]]
    return None not in marks and len(set(marks)) == len(marks)


def _seeds(entry: Entry) -> Text:
    done = len(entry.seeds)
    text = str(done) if done == entry.asked else f"{done} of {entry.asked}"
    return Text(f"{text} {PENDING}" if done and entry.pending else text, entry.footnotes)


def _score(entry: Entry | None, metric: str, alone: bool) -> Text:
    """A score; ``alone``: with the number of seeds, the mark and the footnotes that the list has in columns."""
    if entry is None:
        return Text("")
    footnotes = entry.footnotes if alone else ()
    stat = entry.score.get(metric)
    if stat is None:
        failed = entry.status == "failed"
        return Text("failed" if failed else PENDING, footnotes, "failed" if failed else "pending")
    text = _mean_sd(stat)
    if alone:
        difference = entry.difference.get(metric)
        text += f" ({stat.n})" + ("*" if difference and difference.excludes_zero else "")
    if entry.same_as:
        text += f" {SAME}"
    if metric == "miou" and entry.below:
        text += f" {BELOW}"
    return Text(text, footnotes)


def _mean_sd(stat: Stat) -> str:
    return f"{stat.mean:.2f}" + ("" if stat.sd is None else f" ± {stat.sd:.2f}")


def _difference(entry: Entry, metric: str) -> Text:
    if entry.relation == "reference":
        return Text("reference", kind="quiet")
    if metric not in entry.difference:
        return Text("–" if entry.score else "", kind="quiet")
    return _interval(entry.difference[metric])


def _interval(difference: Interval | None) -> Text:
    if difference is None:
        return Text("")
    kind = ("up" if difference.difference > 0 else "down") if difference.excludes_zero else ""
    return Text(interval(difference), kind=kind)


def interval(difference: Interval) -> str:
    """``−2.51* [−4.17, −0.84]``."""
    mark = "*" if difference.excludes_zero else ""
    return f"{signed(difference.difference)}{mark} [{signed(difference.low)}, {signed(difference.high)}]"


def _published(entry: Entry, source: str, metric: str) -> Text:
    published, comparable = entry.published.get(source, (None, True))
    value: float | None = getattr(published, metric, None)
    if value is None:
        return Text("")
    text = f"{value:.2f}" + (f" ({signed(entry.score[metric].mean - value)})" if entry.score else "")
    return Text(text) if comparable else Text(f"{text} †", kind="quiet")


def signed(value: float) -> str:
    """Two decimals with a real minus; no sign on what rounds to zero."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text
