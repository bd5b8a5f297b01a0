"""``report.html``: one file that opens from disk, needs no network, and escapes whatever comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import yaml

from cpanet.report import charts, gallery
from cpanet.report.runs import WHICH, Run
from cpanet.report.sheets import EPOCHS, interval, remarks, sheets
from cpanet.report.summary import Summary
from cpanet.report.values import Key

COLOURS = 8
TEMPLATES = Path(__file__).parent / "templates"
# overrides that Hydra and this project add to a command's own
ADDED = ("hydra.mode=", "hydra.sweep.dir=", "hydra.job.config.override_dirname.exclude_keys=")


class Row(NamedTuple):
    """A cell of the table as the page counts it."""

    number: int
    key: Key
    label: str
    colour: int
    dashed: bool
    runs: list[Run]


class ClassTable(NamedTuple):
    """Foreground IoU of each class, percent; ``cells[i][j]`` of row ``rows[i]`` and class ``classes[j]``."""

    which: str
    classes: list[str]
    rows: list[Row]
    cells: list[list[float | None]]


def page(summary: Summary) -> str:
    """The whole document."""
    rows, found = _rows(summary), sheets(summary)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return _template().render(
        summary=summary,
        rows=rows,
        numbers={row.key: row for row in rows},
        progress=_progress(summary),
        epochs=EPOCHS,
        sheets={which: [s for s in found if s.which == which] for which in WHICH},
        remarks=remarks(summary),
        forests={which: _forest(summary, rows, which) for which in WHICH},
        charts=_charts(rows),
        galleries=gallery.galleries({row.number: row.runs[0] for row in rows if row.runs}),
        class_tables=[table for which in WHICH for table in _classes(rows, which)],
        commands=[_command(directory) for directory in summary.directories],
        facts=_facts(summary.runs),
        several=len(summary.directories) > 1,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(pieces=pieces, duration=duration, typed=_typed)
    return environment.get_template("page.html.j2")


def _rows(summary: Summary) -> list[Row]:
    cells = summary.pivot.cells
    return [
        Row(
            number,
            key,
            summary.label(key),
            number % COLOURS,
            number // COLOURS % 2 == 1,
            [cell.runs[seed] for seed in sorted(cell.runs)],
        )
        for number, (key, cell) in enumerate(cells.items())
    ]


def _progress(summary: Summary) -> str:
    """``14 of 16 runs completed, 1 failed, 1 to come``."""
    runs = summary.runs
    asked = max(sum(len(cell.seeds) for cell in summary.pivot.cells.values()), len(runs))
    done, failed = sum(run.completed for run in runs), sum(run.failed for run in runs)
    text = f"{done} of {asked} runs completed"
    if failed:
        text += f", {failed} failed"
    if asked > done + failed:
        text += f", {asked - done - failed} to come"
    return text


# ---------------------------------------------------------------------- figures


def _forest(summary: Summary, rows: Sequence[Row], which: str) -> charts.Forest | None:
    found = {}
    for row in rows:
        d = summary.entries[row.key, which].difference.get("miou")
        if d is not None:
            found[row.number] = (d.value, d.low, d.high, d.marked, interval(d))
    return charts.forest(found)


def _charts(rows: Sequence[Row]) -> list[charts.Chart]:
    runs = {row.number: row.runs for row in rows if row.runs}
    found = [
        charts.curves("Training loss", "", "loss_main", runs, 1.0),
        charts.curves("mIoU on the test classes", "%", "miou", runs, 100.0),
    ]
    return [chart for chart in found if chart is not None]


def _classes(rows: Sequence[Row], which: str) -> list[ClassTable]:
    """A table for every set of test classes."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.runs:
            score = row.runs[0].score(which)
            assert score is not None
            groups.setdefault(tuple(score.class_iou), []).append(row)
    return [
        ClassTable(
            which,
            list(classes),
            members,
            [[_class_mean(row, which, name) for name in classes] for row in members],
        )
        for classes, members in groups.items()
    ]


def _class_mean(row: Row, which: str, name: str) -> float | None:
    values = [score.class_iou.get(name) for run in row.runs if (score := run.score(which)) is not None]
    known = [value for value in values if value is not None]
    return 100 * float(np.mean(known)) if known else None


# ---------------------------------------------------------------------- facts


def _command(directory: Path) -> str:
    """The command of a multirun as Hydra kept it; empty where it did not."""
    try:
        kept = yaml.safe_load((directory / "multirun.yaml").read_text(encoding="utf-8"))["hydra"]["overrides"]
        typed = [*map(str, kept["task"]), *(str(o) for o in kept["hydra"] if not str(o).startswith(ADDED))]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, RecursionError):
        return ""
    return _typed(typed, "-m")


def _typed(overrides: Iterable[str], *flags: str) -> str:
    return " ".join(["python run.py", *flags, *map(shlex.quote, overrides)])


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Facts that the numbers may depend on, each with all the values that occur."""
    found: dict[str, dict[str, None]] = {}

    def note(name: str, value: Any) -> None:
        if value not in (None, ""):
            found.setdefault(name, {})[str(value)] = None

    for run in runs:
        note("device", run.fact("device"))
        note("data", run.fact("dataset", "name"))
        note("data fingerprint", str(run.fact("dataset", "fingerprint") or "")[:16])
        note("backbone weights", run.fact("backbone_weights"))
        note("source commit", run.fact("git_commit"))
        versions = run.fact("versions")
        for name, version in versions.items() if isinstance(versions, dict) else ():
            note(str(name), version)
    return [(name, ", ".join(values)) for name, values in found.items()]


def duration(seconds: Any) -> str:
    """``93.4`` → ``1 min 33 s``."""
    if not isinstance(seconds, (int, float)):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


_PIECES = re.compile(r"( ± \d+\.\d+)|( ?\[[^\]]*\])|( \(\d+\))|( ?†)|(✓)")
_KINDS = ("sd", "ci", "n", "dagger", "tick")


def pieces(text: str) -> list[tuple[str, str]]:
    """A cell's text in parts, each with the class it is set in."""
    found, end = [], 0
    for match in _PIECES.finditer(text):
        found.append(("", text[end : match.start()]))
        found.append((_KINDS[(match.lastindex or 1) - 1], match[0]))
        end = match.end()
    return [(kind, part) for kind, part in [*found, ("", text[end:])] if part]
