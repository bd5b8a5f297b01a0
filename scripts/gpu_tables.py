"""The modules table and the k table on real steel (metal8, ImageNet VGG-16), several seeds, fold after fold.

A sweep that runs out of time saves, and goes on when the same command is started again. What is worth keeping of each table
lies in ``FOLDER/results/metal8-NAME``: table, page, curves of every run.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from benchmarks import measure
from cpanet.errors import UserError
from cpanet.records.result_file import read_result
from scripts import stages

TABLES = ("modules", "loss_k")
POINTS = 200  # of a curve that are kept
KEPT = ("table.md", "table.csv", "report.html")


def add_options(made: argparse.ArgumentParser) -> None:
    stages.data_options(made)
    made.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    made.add_argument("--epochs", type=int, default=20, help="of a run; one is about 150 iterations")
    made.add_argument("--evaluate-every", type=int, default=5, metavar="EPOCHS")
    made.add_argument("--seeds", default="0,1,2")
    made.add_argument("--folds", default="0,1,2,3", help="one after the other, each with all tables")
    made.add_argument("--jobs", type=int, default=1, help="runs side by side (needs the extra 'cluster')")
    made.add_argument("--precision", default="auto", help="of training")
    made.add_argument("--override", nargs="*", default=[], metavar="KEY=VALUE", help="for run.py")


def tasks(options: argparse.Namespace) -> list[stages.Task]:
    """A sweep a table and fold; UserError where pictures or weights are missing."""
    made, setting = [], [*_setting(options), f"device={options.device}", f"precision={options.precision}"]
    jobs = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"] if options.jobs > 1 else []
    for fold in options.folds.split(","):
        for table in options.tables:
            folder = sweep_folder(options, table, fold)
            words = [*setting, f"fold={fold}", f"seed={options.seeds}", *jobs, *options.override]
            command = stages.python("run", "-m", f"sweep={table}", *words, f"hydra.sweep.dir={folder}")
            needs = 20 if options.quick else 120
            name = f"tables-{table}-fold{fold}"
            made.append(stages.Task(name, command, makes=folder / "table.md", needs=needs))
    return made


def sweep_folder(options: argparse.Namespace, table: str, fold: str) -> Path:
    """Directory of the multirun."""
    return Path(options.out) / "sweeps" / f"{table}-fold{fold}"


def _setting(options: argparse.Namespace) -> list[str]:
    """Data, backbone and length of a run."""
    length = [f"train.epochs={options.epochs}", f"evaluate.every={options.evaluate_every}"]
    if options.quick:
        made = ["profile=tiny", "recipe=paper", "data=embedded", "backbone=vgg16", "backbone.weights=random"]
        return [*made, "data.workers=0", "log.overlays=0", *length]
    given = {"--data-root": options.data_root, "--weights": options.weights}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise UserError(
            f"The tables need {' and '.join(missing)}: real pictures and real features. Or --quick."
        )
    real = ["data=metal8", f"data.root={Path(options.data_root).resolve()}"]
    weights = ["backbone=vgg16", f"backbone.weights={Path(options.weights).resolve()}"]
    return ["profile=paper", *real, *weights, "evaluate.batch_size=8", *length]


# ----------------------------------------------------------------------------------------------- what is kept


def conclude(options: argparse.Namespace, console: Console) -> bool:
    """Tables over all folds that there are, pages and curves; False where a table has no completed run."""
    names = ("device", "epochs", "evaluate_every", "seeds", "jobs", "precision", "override", "quick")
    made_with = {name: getattr(options, name) for name in names}
    good = True
    for table in options.tables:
        folders = [sweep_folder(options, table, fold) for fold in options.folds.split(",")]
        folders = [folder for folder in folders if any(folder.glob("*/result.json"))]
        data = "embedded" if options.quick else "metal8"
        kept = options.out / "results" / f"{data}-{table.replace('_', '-')}"
        completed = keep(folders, kept, made_with) if folders else 0
        good = good and completed > 0
        console.print(f"{table}: {completed} completed runs in {len(folders)} folds → {kept}")
    return good


def keep(sweeps: list[Path], kept: Path, made_with: dict[str, Any]) -> int:
    """Table and page of several sweeps as one, and their curves, in ``kept``; how many runs are completed."""
    from cpanet import runtime
    from cpanet.report.write import write_report

    kept.mkdir(parents=True, exist_ok=True)
    summary = write_report(sweeps, kept)
    for path in kept.iterdir():
        if path.is_file() and path.name not in KEPT:
            path.unlink()
    page = kept / "report.html"
    page.write_text(without_folders(page.read_text(encoding="utf-8")), encoding="utf-8")
    runs = [path.parent for sweep in sweeps for path in sorted(sweep.glob("*/result.json"))]
    for name, curve_of in (("curves.csv", evaluations), ("losses.csv", losses)):
        curves = [found.assign(sweep=r.parent.name, run=r.name) for r in runs if len(found := curve_of(r))]
        if curves:
            pd.concat(curves).to_csv(kept / name, index=False, float_format="%.6g")
    results = {f"{run.parent.name}/{run.name}": read_result(run) or {} for run in runs}
    completed = {name: found for name, found in results.items() if found.get("status") == "completed"}
    record = {**made_with, "machine": measure.machine(made_with["device"]), "versions": runtime.versions()}
    record.update(sweeps=[s.name for s in sweeps], completed=len(completed), runs=len(summary.runs))
    record["seconds"] = {name: found.get("wall_seconds") for name, found in completed.items()}
    measure.write_json(kept / "made.json", record)
    return len(completed)


def without_folders(text: str) -> str:
    """``text`` in which of the folders and files of this machine that a command names only their own names are left."""
    return re.sub(r"\b(data\.root|backbone\.weights)=(?:/[^/\s'\"<>]+)*/([^/\s'\"<>]+)", r"\1=\2", text)


def evaluations(run: Path) -> pd.DataFrame:
    """``metrics.csv`` of a run; empty where it has not come so far."""
    try:
        return pd.read_csv(run / "metrics.csv")
    except (OSError, ValueError):
        return pd.DataFrame()


def losses(run: Path) -> pd.DataFrame:
    """The training loss from TensorBoard's events, thinned to means of equally many iterations; empty without any."""
    points = [(point.step, point.value) for point in measure.scalars(run, "train/loss")]
    return thinned(pd.DataFrame(points, columns=["iteration", "loss"]))


def thinned(points: pd.DataFrame, most: int = POINTS) -> pd.DataFrame:
    """At most so many rows: means over neighbours, named by the last iteration of each."""
    width = -(-len(points) // most) or 1
    grouped = points.reset_index(drop=True).groupby(lambda row: row // width)
    return grouped.agg({"iteration": "last", "loss": "mean"})


STAGE = stages.Stage("tables", __doc__ or "", add_options, tasks, conclude)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_tables", __doc__ or "", [STAGE]))
