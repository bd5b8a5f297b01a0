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
    made = []
    for fold in options.folds.split(","):
        for table in options.tables:
            folder = sweep_folder(options, table, fold)
            command = stages.python("run", *_sweep(options, table, fold, folder))
            made.append(
                stages.Task(
                    f"tables-{table}-fold{fold}",
                    command,
                    makes=folder / "table.md",
                    needs=20 if options.quick else 120,
                )
            )
    return made


def sweep_folder(options: argparse.Namespace, table: str, fold: str) -> Path:
    """Directory of the multirun."""
    return Path(options.out) / "sweeps" / f"{table}-fold{fold}"


def _sweep(options: argparse.Namespace, table: str, fold: str, folder: Path) -> list[str]:
    jobs = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"] if options.jobs > 1 else []
    return [
        *("-m", f"sweep={table}", *_setting(options)),
        *(f"device={options.device}", f"precision={options.precision}"),
        *(f"fold={fold}", f"seed={options.seeds}", *jobs, *options.override),
        f"hydra.sweep.dir={folder}",
    ]


def _setting(options: argparse.Namespace) -> list[str]:
    """Data, backbone and length of a run."""
    length = [f"train.epochs={options.epochs}", f"evaluate.every={options.evaluate_every}"]
    if options.quick:
        made = ["profile=tiny", "recipe=paper", "data=embedded", "backbone=vgg16", "backbone.weights=random"]
        return [*made, "data.workers=0", "log.overlays=0", *length]
    missing = [
        name for name in ("--data-root", "--weights") if not getattr(options, name[2:].replace("-", "_"))
    ]
    if missing:
        raise UserError(
            f"The tables need {' and '.join(missing)}: real pictures and real features. Or --quick."
        )
    real = [f"data.root={Path(options.data_root).resolve()}"]
    weights = [f"backbone.weights={Path(options.weights).resolve()}"]
    return [
        "profile=paper",
        "data=metal8",
        *real,
        "backbone=vgg16",
        *weights,
        "evaluate.batch_size=8",
        *length,
    ]


# ----------------------------------------------------------------------------------------------- what is kept


def conclude(options: argparse.Namespace, console: Console) -> bool:
    """Tables over all folds that there are, pages and curves; False where a table has no completed run."""
    good = True
    for table in options.tables:
        folders = [sweep_folder(options, table, fold) for fold in options.folds.split(",")]
        folders = [folder for folder in folders if any(folder.glob("*/result.json"))]
        kept = (
            options.out / "results" / f"{'embedded' if options.quick else 'metal8'}-{table.replace('_', '-')}"
        )
        completed = keep(folders, kept, facts(options)) if folders else 0
        good = good and completed > 0
        console.print(f"{table}: {completed} completed runs in {len(folders)} folds → {kept}")
    return good


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Versions and machine that the tables were made with, for the record."""
    names = ("device", "epochs", "evaluate_every", "seeds", "jobs", "precision", "override", "quick")
    return {name: getattr(options, name) for name in names}


def keep(sweeps: list[Path], kept: Path, made_with: dict[str, Any]) -> int:
    """Table and page of several sweeps as one, and their curves, in ``kept``; how many runs are completed."""
    from benchmarks.measure import machine
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
    _write_csv(kept / "curves.csv", [curve for run in runs if (curve := evaluations(run)) is not None])
    _write_csv(kept / "losses.csv", [curve for run in runs if (curve := losses(run)) is not None])
    completed = [run for run in runs if (read_result(run) or {}).get("status") == "completed"]
    record = {**made_with, "machine": machine(made_with["device"]), "versions": runtime.versions()}
    record.update(sweeps=[s.name for s in sweeps], completed=len(completed), runs=len(summary.runs))
    record["seconds"] = {f"{r.parent.name}/{r.name}": _seconds(r) for r in completed}
    stages.write_json(kept / "made.json", record)
    return len(completed)


def without_folders(text: str) -> str:
    """``text`` in which of the folders and files of this machine that a command names only their own names are left."""
    return re.sub(r"\b(data\.root|backbone\.weights)=(?:/[^/\s'\"<>]+)*/([^/\s'\"<>]+)", r"\1=\2", text)


def _seconds(run: Path) -> float | None:
    return (read_result(run) or {}).get("wall_seconds")


def evaluations(run: Path) -> pd.DataFrame | None:
    """``metrics.csv`` of a run with its name; None where it has not come so far."""
    try:
        return pd.read_csv(run / "metrics.csv").assign(sweep=run.parent.name, run=run.name)
    except (OSError, ValueError):
        return None


def losses(run: Path) -> pd.DataFrame | None:
    """The training loss from TensorBoard's events, thinned to means of equally many iterations; None without any."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(run.glob("events.out.tfevents.*")):
        return None
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    if "train/loss" not in events.Tags()["scalars"]:
        return None
    points = pd.DataFrame(
        [(e.step, e.value) for e in events.Scalars("train/loss")], columns=["iteration", "loss"]
    )
    return thinned(points).assign(sweep=run.parent.name, run=run.name)


def thinned(points: pd.DataFrame, most: int = POINTS) -> pd.DataFrame:
    """At most so many rows: means over neighbours, named by the last iteration of each."""
    width = -(-len(points) // most) or 1
    grouped = points.reset_index(drop=True).groupby(lambda row: row // width)
    return grouped.agg({"iteration": "last", "loss": "mean"})


def _write_csv(path: Path, parts: list[pd.DataFrame]) -> None:
    if parts:
        pd.concat(parts).to_csv(path, index=False, float_format="%.6g")


STAGE = stages.Stage("tables", __doc__ or "", add_options, tasks, conclude)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_tables", __doc__ or "", [STAGE]))
