"""A summary as sheets of text, which Markdown, LaTeX and the page set each in its own way.

Every sheet belongs to the best or to the last epoch; a sheet a metric with the table's columns first, where it has
any, then a sheet with every cell as a row: differences, intervals, published values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cpanet.report.labels import MODULES, axis_label, module_marks, phrase, value_label
from cpanet.report.runs import WHICH
from cpanet.report.summary import METRICS, Difference, Entry, Published, Stat, Summary
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
    which: str
    labels: int
    headers: list[str]
    rows: list[list[Text]]
    keys: list[Key]  # a row's cell, or its row key in a grid
    baselines: list[list[Text]]  # rows of the training-free baseline, below the others


def sheets(summary: Summary) -> list[Sheet]:
    """All sheets, the best epoch's first."""
    found = []
    for which in WHICH:
        if summary.pivot.columns:
            found += [_grid(summary, which, metric) for metric in METRICS]
        found.append(_list(summary, which))
    return found


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
    name = ", ".join(
        phrase(axis, value, table.values[axis], table.labels.get(axis))
        for axis, value in zip(table.axes, keys[0] if keys else ())
        if axis in table.reference
    )
    return (name + ", other things equal" if len(keys) > 1 else name) or summary.label(keys[0])


# ---------------------------------------------------------------------- sheets


def _grid(summary: Summary, which: str, metric: str) -> Sheet:
    table, columns = summary.pivot, summary.columns()
    labels = _label_headers(summary, table.rows)
    headers = labels + [
        ", ".join(phrase(a, v, table.values[a], table.labels.get(a)) for a, v in zip(table.columns, key))
        for key in columns
    ]
    keys = table.row_keys()
    found = {row: [summary.entries.get((row + column, which)) for column in columns] for row in keys}
    rows = [
        [*map(Text, _labels(summary, table.rows, row)), *(_score(e, metric, True) for e in found[row])]
        for row in keys
    ]
    # a row that is still to come, in part or altogether, has no baseline of its own
    baselines = {row: [e.baseline if e else None for e in entries] for row, entries in found.items()}
    complete = max(sum(b is not None for b in of_row) for of_row in baselines.values())
    known = {
        row: tuple(b.identity if b else None for b in of_row)
        for row, of_row in baselines.items()
        if complete and sum(b is not None for b in of_row) == complete
    }
    below = []
    for members in _alike(known):
        names = _baseline_labels(summary, table.rows, _common(members, list(known)))
        stats = [b.score[metric] if b else None for b in baselines[members[0]]]
        below.append(names + [Text(f"{_mean_sd(stat)} ({stat.n})" if stat else "") for stat in stats])
    title = f"{METRICS[metric]}, {EPOCHS[which][0].lower()}{EPOCHS[which][1:]}"
    return Sheet(title, which, len(labels), headers, rows, keys, below)


def _list(summary: Summary, which: str) -> Sheet:
    axes = summary.pivot.axes
    entries = [summary.entries[key, which] for key in summary.keys]
    labels = _label_headers(summary, axes)
    headers = [*labels, "seeds", *METRICS.values()]
    differences = any(e.difference or e.relation == "unpaired" for e in summary.entries.values())
    baselines = {e.key: e.baseline for e in entries if e.baseline}
    sources = summary.sources if which == "best" else []
    if differences:
        headers += [f"Δ {name} [95 %]" for name in METRICS.values()]
    if baselines:
        headers.append("Δ baseline mIoU [95 %]")
    for mark, _ in zip(_source_marks(summary), sources):
        headers += [f"published{mark} {name}" for name in METRICS.values()]
    rows = []
    for entry in entries:
        cells = [*map(Text, _labels(summary, axes, entry.key)), _seeds(entry)]
        cells += [_score(entry, metric, False) for metric in METRICS]
        if differences:
            cells += [_difference(entry, metric) for metric in METRICS]
        if baselines:
            cells.append(_interval(entry.baseline.difference if entry.baseline else None))
        cells += [_published(entry.published.get(s.source), metric) for s in sources for metric in METRICS]
        rows.append(cells)
    below = []
    for members in _alike({key: found.identity for key, found in baselines.items()}):
        score = baselines[members[0]].score
        row = _baseline_labels(summary, axes, _common(members, list(baselines)))
        row += [Text(str(score["miou"].n)), *(Text(_mean_sd(stat)) for stat in score.values())]
        below.append(row + [Text("")] * (len(headers) - len(row)))
    title = EPOCHS[which]
    if summary.pivot.columns:
        title = f"Every cell, {title[0].lower()}{title[1:]}"
    return Sheet(title, which, len(labels), headers, rows, list(summary.keys), below)


# ---------------------------------------------------------------------- the training-free baseline


def _alike(identities: Mapping[Key, object]) -> list[list[Key]]:
    """The keys that share a baseline, in their order."""
    groups: dict[object, list[Key]] = {}
    for key, identity in identities.items():
        groups.setdefault(identity, []).append(key)
    return list(groups.values())


def _common(keys: Sequence[Key], every: Sequence[Key]) -> Key:
    """Per axis the value that ``keys`` share where not all of ``every`` do; empty elsewhere."""
    shared = [({key[i] for key in keys}, {key[i] for key in every}) for i in range(len(keys[0]))]
    return tuple(mine.pop() if len(mine) == 1 and len(all_) > 1 else "" for mine, all_ in shared)


def _baseline_labels(summary: Summary, axes: Sequence[str], key: Key) -> list[Text]:
    texts: list[str] = []
    for axis, value in zip(axes, key):
        empty = [""] * (len(MODULES) if _as_modules(summary, axis) else 1)
        texts += empty if value == "" else _labels(summary, [axis], (value,))
    first, *rest = texts or [""]
    return [Text(f"{first}, {BASELINE_NAME}" if first else BASELINE_NAME), *map(Text, rest)]


# ---------------------------------------------------------------------- labels and cells


def _source_marks(summary: Summary) -> list[str]:
    """Marks that tell the columns of several sources apart."""
    several = len(summary.sources) > 1
    return [f" ({chr(ord('a') + i)})" if several else "" for i in range(len(summary.sources))]


def _label_headers(summary: Summary, axes: Sequence[str]) -> list[str]:
    headers: list[str] = []
    for axis in axes:
        headers += [m.upper() for m in MODULES] if _as_modules(summary, axis) else [axis_label(axis)]
    return headers or ["runs"]


def _labels(summary: Summary, axes: Sequence[str], key: Key) -> list[str]:
    texts: list[str] = []
    table = summary.pivot
    for axis, value in zip(axes, key):
        text = value_label(axis, value, table.values[axis], table.labels.get(axis))
        marks = module_marks(text) if _as_modules(summary, axis) else None
        texts += marks or [text]
    return texts or [summary.title]


def _as_modules(summary: Summary, axis: str) -> bool:
    """Whether the rows' labels are combinations of CPP, SA and SSA, each another one."""
    if axis != "ablation":
        return False
    table = summary.pivot
    marks = [
        module_marks(value_label(axis, v, table.values[axis], table.labels.get(axis)))
        for v in table.values[axis]
    ]
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
        text += f" ({stat.n})" + ("*" if difference and difference.marked else "")
    if entry.same_as:
        text += f" {SAME}"
    if metric == "miou" and entry.baseline is not None and entry.baseline.below:
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


def _interval(difference: Difference | None) -> Text:
    if difference is None:
        return Text("")
    return Text(
        interval(difference), kind=("up" if difference.value > 0 else "down") if difference.marked else ""
    )


def interval(difference: Difference) -> str:
    """``−2.51* [−4.17, −0.84]``."""
    mark = "*" if difference.marked else ""
    return f"{signed(difference.value)}{mark} [{signed(difference.low)}, {signed(difference.high)}]"


def _published(published: Published | None, metric: str) -> Text:
    value = published.values[metric] if published else None
    if published is None or value is None:
        return Text("")
    difference = published.differences[metric]
    text = f"{value:.2f}" + ("" if difference is None else f" ({signed(difference)})")
    return Text(text if published.comparable else f"{text} †", kind="" if published.comparable else "quiet")


def signed(value: float) -> str:
    """Two decimals with a real minus; no sign on what rounds to zero."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text
