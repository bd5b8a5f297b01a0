"""Quality over iterations and over time: recipes side by side, several seeds, real runs of run.py.

python -m benchmarks.quality                                   paper and fast on the embedded set, minutes on a CPU
python -m benchmarks.quality --seeds 0,1,2 --iterations 480    more of it
python -m benchmarks.quality --folds 0,1,2,3 data=metal8 data.root=DIR backbone=vgg16 backbone.weights=FILE
python -m benchmarks.quality --recipe paper --recipe "gentle=recipe=fast recipe.optimizer.lr=0.0003"

Trains every recipe with every seed on every fold for the same number of iterations, with the same evaluations on the same
episodes, and writes a JSON, a table and a figure. What follows the options are overrides as for run.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.report import markdown
from benchmarks.workload import run_parser
from cpanet.errors import UserError
from cpanet.records.result_file import read_result, read_rows
from cpanet.report.statistics import t_quantile

FIGURES = measure.ROOT / "docs" / "figures"
EMBEDDED = ("profile=quick", "data=embedded", "backbone.weights=random")
ON_PLATEAU = 0.02  # mIoU: a network that marks next to nothing


@dataclass(frozen=True)
class Run:
    """One run: at each evaluation its iteration, mIoU and seconds of training so far; and how it ended."""

    recipe: str
    fold: int
    seed: int
    status: str
    iterations: list[int]
    miou: list[float]
    seconds: list[float]
    loss: list[float | None]
    floor: float | None

    @property
    def left_plateau(self) -> int | None:
        """First evaluated iteration from which on the mIoU stays above :data:`ON_PLATEAU`; None: never."""
        left = None
        for iteration, miou in zip(self.iterations, self.miou):
            if miou <= ON_PLATEAU:
                left = None
            elif left is None:
                left = iteration
        return left


def mean(values: Sequence[float]) -> dict[str, float | None]:
    """``value``: the mean; ``half``: half the width of its 95 % interval (Student's t), None of one seed."""
    half = None
    if len(values) > 1:
        half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"value": statistics.fmean(values), "half": half}


def shown(found: dict[str, Any]) -> str:
    """``0.123 ± 0.045``."""
    return f"{found['value']:.3f}" + ("" if found["half"] is None else f" ± {found['half']:.3f}")


def by_seed(runs: Sequence[Run], values: Any) -> list[float]:
    """``values(run)`` averaged over the folds of each seed: an interval rests on seeds."""
    seeds = sorted({run.seed for run in runs})
    return [statistics.fmean(values(run) for run in runs if run.seed == seed) for seed in seeds]


def curve(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """At each evaluation that all ``runs`` have: iteration, mean seconds, mean mIoU and its interval."""
    return [
        {
            "iteration": runs[0].iterations[i],
            "seconds": statistics.fmean(run.seconds[i] for run in runs),
            **mean(by_seed(runs, lambda run, i=i: run.miou[i])),
        }
        for i in range(min(len(run.iterations) for run in runs))
    ]


def reaches(points: Sequence[dict[str, Any]], miou: float) -> int | None:
    """First iteration of a mean curve, after the start, at which it has ``miou``."""
    return next((p["iteration"] for p in points if p["iteration"] and p["value"] >= miou), None)


def summary(runs: Sequence[Run], target: float) -> dict[str, Any]:
    """Row of the table for one recipe; ``target`` is the first recipe's last mIoU."""
    finished = [run for run in runs if run.status == "completed"]
    found: dict[str, Any] = {
        "runs": len(runs),
        "diverged": sum(run.status == "diverged" for run in runs),
        "failed": sum(run.status not in ("completed", "diverged") for run in runs),
    }
    if not finished:
        return found
    points, left = curve(finished), [run.left_plateau for run in finished]

    def over_baseline(run: Run) -> float:
        return run.miou[-1] - (run.floor or 0.0)

    return {
        **found,
        "left_plateau": statistics.fmean(x for x in left if x is not None) if None not in left else None,
        "still_on_plateau": left.count(None),
        "last": mean(by_seed(finished, lambda run: run.miou[-1])),
        "best": mean(by_seed(finished, lambda run: max(run.miou[1:]))),
        "over_floor": mean(by_seed(finished, over_baseline)),
        "over_floor_by_fold": {
            str(fold): mean([over_baseline(run) for run in finished if run.fold == fold])
            for fold in sorted({run.fold for run in finished})
        },
        "reaches_first_recipe": reaches(points, target),
        "seconds": statistics.fmean(run.seconds[-1] for run in finished),
        "curve": points,
    }


def summarise(runs: Sequence[Run], recipes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The summary of every recipe, the first of which is the one that the others are held against."""
    reference = [run for run in runs if run.recipe == recipes[0] and run.status == "completed"]
    target = statistics.fmean(run.miou[-1] for run in reference) if reference else math.inf
    return {name: summary([run for run in runs if run.recipe == name], target) for name in recipes}


# ---------------------------------------------------------------------- running and reading


def read_run(directory: Path, recipe: str) -> Run:
    """A run's directory, as run.py left it."""
    result = read_result(directory) or {}
    rows = read_rows(directory, "metrics.csv") or []
    steps = [point.value for point in measure.scalars(directory, "train/step_seconds")]
    baseline = result.get("floor")
    return Run(
        recipe,
        result["config"]["fold"],
        result["config"]["seed"],
        result["status"],
        [int(row["iteration"]) for row in rows],
        [round(float(row["miou"]), 5) for row in rows],
        [round(sum(steps[: int(row["iteration"])]), 2) for row in rows],
        [round(float(row["loss_main"]), 5) if row["loss_main"] else None for row in rows],
        None if baseline is None else round(baseline["miou"], 5),
    )


def train(
    recipe: str, overrides: Sequence[str], folds: str, seeds: str, folder: Path, threads: str | None = None
) -> list[Run]:
    """``run.py -m`` over folds and seeds; the runs that left a record. UserError where none did."""
    command = [sys.executable, "run.py", "-m", *overrides, f"fold={folds}", f"seed={seeds}"]
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={folder}", "log.overlays=0"],
        cwd=measure.ROOT,
        env=None if threads is None else {**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    records = sorted(folder.rglob("result.json"))
    if not records:
        raise UserError(f"recipe {recipe}: {' '.join(command)} left no run.\n{done.stderr[-2000:].strip()}")
    for path in records:
        result = read_result(path.parent) or {}
        if result["status"] != "completed":
            why = f"{result['status']}. {result.get('reason')}"
            print(f"{recipe}, {path.parent.name}: {why}", file=sys.stderr)
    return [read_run(path.parent, recipe) for path in records]


def parse_recipe(text: str) -> tuple[str, list[str]]:
    """``fast`` → (fast, [recipe=fast]); ``name=recipe=fast recipe.dropout=true`` → (name, both overrides)."""
    name, _, overrides = text.partition("=")
    return (name, overrides.split()) if overrides else (name, [f"recipe={name}"])


# ---------------------------------------------------------------------- table and figure


COLUMNS = (
    "recipe", "runs", "leaves the plateau at", "last mIoU", "minus the baseline", "reaches the first row's last mIoU at",
    "seconds of training", "diverged", "failed",
)  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """Markdown: a row a recipe."""
    rows = []
    for name, found in record["recipes"].items():
        scores = ["", "", "", "", ""]
        if "last" in found:
            late = f"not within the budget ({found['still_on_plateau']} of {found['runs']})"
            left = late if found["left_plateau"] is None else f"{found['left_plateau']:.0f}"
            reached = found["reaches_first_recipe"] or "never"
            scores = [
                left,
                shown(found["last"]),
                shown(found["over_floor"]),
                reached,
                f"{found['seconds']:.0f}",
            ]
        rows.append([name, found["runs"], *scores, found["diverged"], found["failed"]])
    return markdown(COLUMNS, rows)


def draw(record: dict[str, Any], path: Path) -> None:
    """mIoU over iterations and over seconds of training, bands: 95 % intervals over seeds; dashed: training-free."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, constrained_layout=True)
    for axis, key, label in zip(axes, ("iteration", "seconds"), ("iterations", "seconds of training")):
        for name, found in record["recipes"].items():
            points = found.get("curve", [])
            at, values = [p[key] for p in points], [p["value"] for p in points]
            (line,) = axis.plot(at, values, marker="o", markersize=3, label=name)
            if points and points[0]["half"] is not None:
                low, high = zip(*((p["value"] - p["half"], p["value"] + p["half"]) for p in points))
                axis.fill_between(at, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        if record["floor"] is not None:
            line = {"color": "0.4", "linestyle": "--", "linewidth": 1}
            axis.axhline(record["floor"], label="training-free baseline", **line)
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mIoU on unseen classes")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def assemble(
    runs: Sequence[Run], recipes: dict[str, list[str]], overrides: Sequence[str], iterations: int
) -> dict[str, Any]:
    """The record: what was run, every run, and each recipe's summary."""
    baselines = [run.floor for run in runs if run.floor is not None]
    return {
        **measure.header("quality", "cpu"),
        "overrides": [measure.without_path(override) for override in overrides],
        "recipe_overrides": recipes,
        "iterations": max((run.iterations[-1] for run in runs if run.iterations), default=iterations),
        "floor": statistics.fmean(baselines) if baselines else None,
        "recipes": summarise(runs, list(recipes)),
        "runs": [asdict(run) for run in runs],
    }


def arguments() -> argparse.Namespace:
    options = run_parser("quality", __doc__, f"for run.py, after {' '.join(EMBEDDED)}")
    add = options.add_argument
    add("--recipe", action="append", metavar="NAME[=OVERRIDES]", help="repeatable; default: paper, fast")
    budget = "of every run; fewer where an epoch has not as many batches as lie between two evaluations"
    add("--iterations", type=int, default=240, help=budget)
    add("--evaluations", type=int, default=6, help="of every run, evenly spread")
    add("--seeds", default="0,1,2")
    add("--folds", default="0")
    add("--threads", help="of a run (OMP_NUM_THREADS)")
    add("--name", default="embedded", help="of the files: quality-NAME.json, .md, .svg")
    add("--out", metavar="DIR", help="for all files; default: benchmarks/results, docs/figures")
    add("--join", nargs="+", metavar="FILE", help="put these records together; run nothing")
    return options.parse_args()


def join(files: Sequence[str]) -> dict[str, Any]:
    """One record of several with the same overrides and budget. UserError where these differ."""
    records = [json.loads(Path(file).read_text()) for file in files]
    first = records[0]
    for file, record in zip(files, records):
        if any(record[key] != first[key] for key in ("overrides", "iterations")):
            raise UserError(f"{file} was run with other overrides or another budget than {files[0]}.")
    recipes = {name: chosen for record in records for name, chosen in record["recipe_overrides"].items()}
    runs = [Run(**run) for record in records for run in record["runs"]]
    joined = assemble(runs, recipes, first["overrides"], first["iterations"])
    return {**joined, "command": [record["command"] for record in records], "machine": first["machine"]}


def main() -> int:
    options = arguments()
    try:
        record = join(options.join) if options.join else compare(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    results = Path(options.out) if options.out else measure.RESULTS
    stem = f"quality-{options.name}"
    written = measure.write(stem, record, str(results / f"{stem}.json"))
    (results / f"{stem}.md").write_text(table(record))
    draw(record, (Path(options.out) if options.out else FIGURES) / f"{stem}.svg")
    print(table(record))
    print(f"training-free baseline {record['floor']}; written to {written}")
    return 0


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything; the record."""
    recipes = dict(parse_recipe(text) for text in options.recipe or ("paper", "fast"))
    length = max(1, options.iterations // options.evaluations)
    budget = [
        f"train.epochs={options.iterations // length}",
        f"train.iterations_per_epoch={length}",
        "evaluate.every=1",
    ]
    runs: list[Run] = []
    for name, chosen in recipes.items():
        print(f"{name}: {' '.join(chosen)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
            overrides = [*EMBEDDED, *options.overrides, *budget, *chosen]
            runs += train(name, overrides, options.folds, options.seeds, Path(folder), options.threads)
    return assemble(runs, recipes, [*EMBEDDED, *options.overrides, *budget], options.iterations)


if __name__ == "__main__":
    sys.exit(main())
