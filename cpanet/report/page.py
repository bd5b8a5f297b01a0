"""``report.html``: one file that opens from disk, needs no network, and escapes whatever comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from cpanet.report import charts, gallery
from cpanet.report.runs import WHICH, Run, read_yaml
from cpanet.report.sheets import EPOCHS, interval, remarks, sheets
from cpanet.report.summary import Summary
from cpanet.report.values import Key, at

TEMPLATES = Path(__file__).parent / "templates"
# overrides that Hydra and this project add to a command's own
ADDED = ("hydra.mode=", "hydra.sweep.dir=", "hydra.job.config.override_dirname.exclude_keys=")


class Row(NamedTuple):
    """A cell of the table as the page counts it."""

    number: int
    key: Key
    label: str
    runs: list[Run]


def page(summary: Summary) -> str:
    """The whole document."""
    rows = [
        Row(number, key, summary.pivot.label(key), [cell.runs[seed] for seed in sorted(cell.runs)])
        for number, (key, cell) in enumerate(summary.pivot.cells.items())
    ]
    runs = {row.number: row.runs for row in rows if row.runs}
    curves = [
        charts.curves("Training loss", "", "loss_main", runs, 1.0),
        charts.curves("mIoU on the test classes", "%", "miou", runs, 100.0),
    ]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return _template().render(
        summary=summary,
        rows=rows,
        numbers={row.key: row for row in rows},
        progress=_progress(summary),
        epochs=EPOCHS,
        sheets=sheets(summary),
        remarks=remarks(summary),
        forests={which: _forest(summary, rows, which) for which in WHICH},
        charts=[chart for chart in curves if chart],
        galleries=gallery.galleries({number: of_row[0] for number, of_row in runs.items()}),
        class_tables=[table for which in WHICH for table in _classes(rows, which)],
        commands=[_command(directory) for directory in summary.directories],
        facts=_facts(summary.runs),
        several=len(summary.directories) > 1,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(pieces=pieces, duration=duration, typed=_typed, interval=interval)
    return environment.get_template("page.html.j2")


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


def _forest(summary: Summary, rows: Sequence[Row], which: str) -> dict[str, Any] | None:
    found = {row.number: summary.entries[row.key, which].difference.get("miou") for row in rows}
    return charts.forest({number: difference for number, difference in found.items() if difference})


def _classes(rows: Sequence[Row], which: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Foreground IoU, percent: a table (rows × classes) for every set of test classes."""
    groups: dict[tuple[str, ...], dict[int, pd.Series]] = defaultdict(dict)
    for row in rows:
        if row.runs:
            found = pd.DataFrame([run.scores[which].class_iou for run in row.runs])
            groups[tuple(row.runs[0].scores[which].class_iou)][row.number] = 100 * found.mean()
    for classes, members in groups.items():
        yield which, pd.DataFrame(members, index=classes).T


# ---------------------------------------------------------------------- facts


def _command(directory: Path) -> str:
    """The command of a multirun as Hydra kept it; empty where it did not."""
    kept = at(read_yaml(directory / "multirun.yaml"), "hydra", "overrides")
    task, own = at(kept, "task"), at(kept, "hydra")
    if not (isinstance(task, list) and isinstance(own, list)):
        return ""
    return _typed([*map(str, task), *(str(text) for text in own if not str(text).startswith(ADDED))], "-m")


def _typed(overrides: Iterable[str], *flags: str) -> str:
    return " ".join(["python run.py", *flags, *map(shlex.quote, overrides)])


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Facts that the numbers may depend on, each with all the values that occur."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        versions = at(run.result, "versions")
        facts = {
            "device": at(run.result, "device"),
            "data": at(run.result, "dataset", "name"),
            "data fingerprint": str(at(run.result, "dataset", "fingerprint") or "")[:16],
            "backbone weights": at(run.result, "backbone_weights"),
            "source commit": at(run.result, "git_commit"),
            **(versions if isinstance(versions, dict) else {}),
        }
        for name, value in facts.items():
            if value not in (None, ""):
                found[str(name)][str(value)] = None
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


_PIECES = re.compile(r"(?P<sd> ± \d+\.\d+)|(?P<ci> ?\[[^\]]*\])|(?P<n> \(\d+\))|(?P<dagger> ?†)|(?P<tick>✓)")


def pieces(text: str) -> list[tuple[str, str]]:
    """A cell's text in parts, each with the class it is set in."""
    found, end = [], 0
    for match in _PIECES.finditer(text):
        found += [("", text[end : match.start()]), (str(match.lastgroup), match[0])]
        end = match.end()
    return [(kind, part) for kind, part in [*found, ("", text[end:])] if part]
