"""``task=evaluate``: a checkpoint on any data set, fold and number of shots, over several draws of the supports.

Importing this module starts no Jittor: the check comes first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from cpanet import data, runtime
from cpanet.checkpoint.description import Description, describe
from cpanet.config.schema import EvaluateConfig
from cpanet.console import console, log
from cpanet.data.memory import dataset_of
from cpanet.records.result_file import dataset_facts, write_result
from cpanet.records.run_directory import RunDirectory, episode_rows, git_commit, peak_memory_mb
from cpanet.report.statistics import Episodes, Interval, compare, estimate
from cpanet.runtime.processor import current_threads
from cpanet.tasks.input_checks import check_inputs, read_images

if TYPE_CHECKING:
    from cpanet import engine
    from cpanet.feature_cache import ImageFeatures

    Draws = Mapping[int, engine.Evaluation]  # by episode seed


def preflight(config: EvaluateConfig) -> None:
    """Raises UserError for a fold or a number of shots that the data set lacks, for damaged images, for no checkpoint."""
    check_inputs(config)
    read_images(config)


def run(
    config: EvaluateConfig,
    directory: Path,
    resume: bool = False,
    shared: bool = False,
    threads: int | None = None,
) -> float:
    """Evaluate into ``directory``: ``episodes.csv``, ``result.json``; returns the mean mIoU over the draws.

    The training-free baseline of the same features meets the same episodes. Raises UserError for a checkpoint, a fold or
    a number of shots that cannot be had. ``threads``: CPU threads that it may use, None for the machine's.
    """
    started = time.perf_counter()
    device = runtime.prepare(config.device, config.log.verbose, threads, config.precision)
    from cpanet.components import baseline_of
    from cpanet.feature_cache import ImageFeatures
    from cpanet.models import PrototypeBaseline

    section = config.data
    dataset = dataset_of(section, config.shot)
    description = None if config.checkpoint is None else describe(config.checkpoint)
    model = _model(config, description)
    log(
        f"{config.backbone.name}, {dataset.name}, fold {config.fold}, {config.shot}-shot, "
        f"{len(set(config.evaluate.episode_seeds))} draws of supports, "
        f"seen at {section.image_size}×{section.image_size} pixels; {device.gpu or device.device}"
    )
    warnings = warnings_of(description, dataset, config.fold)
    for warning in warnings:
        log(warning, "bold yellow")
    indices = dataset.split(config.fold).test_indices
    for note in dataset.lost_masks(indices, section.image_size):
        log(f"note: {note}", "yellow")
    features = ImageFeatures(model, dataset, indices, section.image_size)
    draws = evaluate_draws(model, dataset, features, config)
    baseline_draws = None
    if not isinstance(model, PrototypeBaseline):
        baseline = baseline_of(config, model.backbone)
        if baseline.unpooled != model.unpooled:
            features = ImageFeatures(baseline, dataset, indices, section.image_size)
        baseline_draws = evaluate_draws(baseline, dataset, features, config)
    result = {
        "task": "evaluate",
        "status": "completed",
        **_scores(dataset, draws, baseline_draws),
        "warnings": warnings,
        "config": config.model_dump(),
        "dataset": dataset_facts(dataset, config.fold, config.shot, len(next(iter(draws.values())).results)),
        "checkpoint": str(description.path) if description and description.path else None,
        "device": device.gpu or device.device,
        "threads": current_threads(),
        "versions": runtime.versions(),
        "git_commit": git_commit(),
        "seed": config.seed,
        "wall_seconds": round(time.perf_counter() - started, 3),
        "iterations": 0,
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    RunDirectory(directory).write_rows(
        "episodes.csv",
        [
            row
            for name, several in (("draw", draws), ("floor", baseline_draws or {}))
            for seed, draw in several.items()
            for row in episode_rows(f"{name} {seed}", 0, draw.results, dataset.names, dataset.classes)
        ],
    )
    write_result(directory, result)
    show(result)
    log(f"→ {directory}")
    return float(result["miou"]["mean"])


def _model(config: EvaluateConfig, description: Description | None) -> Any:
    from cpanet.checkpoint.restore import restore
    from cpanet.components import build_model

    if description is None or config.method == "prototype":
        return build_model(config)[0]
    for note in description.notes:
        log(f"note: {note}")
    model = restore(description)
    model.protocol = config.protocol
    return model


def evaluate_draws(
    model: Any,
    dataset: data.DefectDataset,
    features: ImageFeatures,
    config: EvaluateConfig,
) -> dict[int, engine.Evaluation]:
    """Every test image once as query for each seed, which draws its supports."""
    from cpanet import engine

    options, draws = config.evaluate, {}
    for seed in dict.fromkeys(options.episode_seeds):
        episodes = data.test_episodes(dataset, config.fold, config.shot, seed, options.episodes)
        draws[seed] = engine.evaluate(model, dataset, episodes, features, options.batch_size)
    return draws


def warnings_of(description: Description | None, dataset: data.DefectDataset, fold: int) -> list[str]:
    """Reasons why the scores are no test of unseen classes."""
    if description is None or description.path is None:
        return []
    tested = [dataset.classes[c] for c in dataset.split(fold).test_classes]
    if description.classes is None:
        return [
            f"{description.path.name} does not say which classes it was trained on: whether {', '.join(tested)} "
            "are unseen is for you to know."
        ]
    seen = [name for name in tested if name in description.classes]
    if not seen:
        return []
    return [
        f"warning: the checkpoint was trained on {', '.join(seen)}, which this fold tests: its scores are not those of "
        "unseen classes."
    ]


def _scores(dataset: data.DefectDataset, draws: Draws, baseline_draws: Draws | None) -> dict[str, Any]:
    """Means, intervals and every draw; ``best`` and ``last`` are the mean, under the names that reports read."""
    miou, fb_iou = estimate([_block(draws)])
    by_class = [draw.scores.class_iou for draw in draws.values()]
    class_iou = {dataset.classes[c]: float(np.mean([iou[c] for iou in by_class])) for c in by_class[0]}
    mean = {"epoch": 0, "miou": miou.difference, "fb_iou": fb_iou.difference, "class_iou": class_iou}
    scores: dict[str, Any] = {
        "best": mean,
        "last": mean,
        "miou": _plain(miou),
        "fb_iou": _plain(fb_iou),
        "class_iou": class_iou,
        "draws": [
            {"episode_seed": seed, "miou": draw.scores.miou, "fb_iou": draw.scores.fb_iou}
            for seed, draw in draws.items()
        ],
    }
    if baseline_draws is not None:
        over, _ = compare([_block(draws)], [_block(baseline_draws)])
        base, base_fb = estimate([_block(baseline_draws)])
        scores["floor"] = {"epoch": 0, "miou": base.difference, "fb_iou": base_fb.difference, "class_iou": {}}
        scores["over_floor"] = _plain(over)
    return scores


def _block(draws: Draws) -> dict[int, Episodes]:
    """The draws as a report reads seeds. A draw differs in its supports alone, so that a query stands for its episode."""
    return {
        seed: Episodes(
            tuple((str(r.episode.class_index), str(r.episode.query), "") for r in draw.results),
            np.array([r.counts for r in draw.results], np.int64),
        )
        for seed, draw in draws.items()
    }


def _plain(interval: Interval) -> dict[str, float]:
    return {"mean": interval.difference, "low": interval.low, "high": interval.high}


def show(result: Mapping[str, Any]) -> None:
    """The scores in percent, a line each."""
    table = Table("%", "mean", "95 % interval", box=None, pad_edge=False)
    rows = [("mIoU", result["miou"]), ("FB-IoU", result["fb_iou"])]
    if "over_floor" in result:
        rows.append(("mIoU over the training-free baseline", result["over_floor"]))
    for name, value in rows:
        low, high = 100 * value["low"], 100 * value["high"]
        table.add_row(name, f"{100 * value['mean']:.2f}", f"{low:.2f} to {high:.2f}")
    for name, iou in result["class_iou"].items():
        table.add_row(f"IoU {name}", f"{100 * iou:.2f}")
    console.print(table)
