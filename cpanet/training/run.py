"""One run of training: set up, trained, and its end recorded, whatever it is."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from cpanet import runtime
from cpanet.checkpoint.files import write_checkpoint
from cpanet.components import baseline_of, build_model, build_training
from cpanet.config import Config
from cpanet.console import console, log
from cpanet.data import Batch, DefectDataset
from cpanet.data.memory import dataset_of
from cpanet.engine import Diverged
from cpanet.errors import in_one_line
from cpanet.feature_cache import ImageFeatures, SharedFeatures, backbone_key
from cpanet.files import CannotWrite
from cpanet.models.init import principal_projection, start_from
from cpanet.records.result_file import Result, dataset_facts, write_result
from cpanet.records.run_directory import RunDirectory, git_commit, peak_memory_mb
from cpanet.records.run_logger import RunLogger
from cpanet.runtime import Runtime, jt
from cpanet.runtime.processor import current_threads
from cpanet.signals import stop_signals
from cpanet.training.batches import TrainingBatches
from cpanet.training.checkpoints import Checkpoints, Learner, TrainingState
from cpanet.training.evaluator import Evaluator
from cpanet.training.trainer import Interrupted, Trainer

SHARED = SharedFeatures()  # by the runs of a process
PRINCIPAL_IMAGES = 64  # training images from which a start takes its principal components
FIGURES = 8  # test episodes in figures/ of a completed run


def run(config: Config, directory: Path, device: Runtime, resume: bool, shared: bool) -> float:
    """Train and evaluate into ``directory``, see :func:`cpanet.tasks.train.run`; Jittor runs on ``device``."""
    dataset = dataset_of(config.data, config.shot)
    model, file = build_model(config)
    # random weights depend on the seed
    weights = ("random", config.seed) if file is None else (str(file), file.stat().st_mtime_ns)
    key = (  # everything that decides the features of the fold's images
        backbone_key(config.backbone.model_dump()),
        weights,
        dataset.fingerprint,
        config.fold,
        config.data.leave_out,
        config.data.image_size,
        config.model.fused,
        device.device,
    )
    init = config.recipe.init
    if config.method == "cpanet" and (init.head, init.projection) == ("prototype", "principal"):
        _start_from_training_images(config, dataset, model, key)
    learner = Learner(model, *build_training(config, model))
    records = RunDirectory(directory)
    checkpoints = Checkpoints(records, learner, _description(config, dataset))
    state = (checkpoints.restore() if resume else None) or TrainingState()
    epochs = 0 if learner.optimizer is None else config.train.epochs
    # a GPU makes features faster than they are copied; a backbone in training mode makes new ones every time
    shareable = shared and device.device == "cpu" and config.protocol.backbone_mode == "eval"
    batches = TrainingBatches(config, dataset, model, key, epochs, SHARED if shareable else None)
    evaluator = Evaluator(config, dataset, key, SHARED)
    with batches.loader, stop_signals(log) as stopped:
        records.create()
        logger = RunLogger(records, hyperparameters(config), going_on_from=state.iteration or None)
        baseline = baseline_of(config, model.backbone)
        trainer = Trainer(config, learner, baseline, batches, evaluator, checkpoints, logger, state)
        _announce(trainer, device)
        status, reason = "failed", None
        try:
            trainer.run(stopped)
            status = "completed"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except Diverged as error:
            kept = _keep_batch(records, batches.images(error.iteration), error.iteration, dataset)
            status, reason = "diverged", f"{error} {kept}"
            error.args = (reason,)
            raise
        except CannotWrite as error:
            error.args = (f"{error} Then go on with: {records.resume_command}",)
            reason = str(error)
            raise
        except Exception as error:
            reason = in_one_line(error)
            raise
        finally:
            trainer.stop_clock()
            # where the disk is full already, that is the error to tell
            with suppress(CannotWrite) if status == "failed" else nullcontext():
                source = "random" if file is None else file.name
                write_result(records.path, _result(trainer, device, status, reason, source))
            if status == "completed":
                with learner.scored_weights() as scored:
                    figures = evaluator.figures(scored, FIGURES)
                logger.figures(state.steps, state.rows, figures)
            logger.close(status == "completed")
        console.print(f"{_conclusion(state)}{escape(str(records.path))}")
        if stopped():  # after the last epoch: this run is complete, a sweep ends here
            raise Interrupted("The run is complete.")
    assert state.best is not None
    return float(state.best["miou"])


def _start_from_training_images(config: Config, dataset: DefectDataset, model: Any, key: tuple) -> None:
    """The head's comparison starts in the principal components of what the backbone makes of training images."""
    indices = dataset.split(config.fold).train_indices
    chosen = [int(i) for i in indices[:: max(1, len(indices) // PRINCIPAL_IMAGES)]]

    def projection() -> Any:
        features = ImageFeatures(model, dataset, chosen, config.data.image_size).features
        with jt.no_grad():
            normalised = model.head_features(jt.array(features)).numpy()
        model.train()  # Jittor's eval() switches gradients off
        return principal_projection(normalised, config.model.width // 4)

    width = config.model.width
    start_from(model, SHARED.projection((*key, config.recipe.features, width), projection))


def _description(config: Config, dataset: DefectDataset) -> dict[str, Any]:
    """Description of the run, for its checkpoints."""
    split = dataset.split(config.fold)
    sides = [max(dataset.masks[i].shape) for i in split.train_indices]
    return {
        "config": config.model_dump(),
        "classes": list(dataset.classes),
        "train_classes": [dataset.classes[c] for c in split.train_classes],
        "picture_side": int(np.median(sides)),
        "dataset": dataset.fingerprint,
    }


def _announce(trainer: Trainer, device: Runtime) -> None:
    config, evaluator = trainer.config, trainer.evaluator
    dataset = evaluator.dataset
    what = f"ablation {config.ablation.name}" if trainer.epochs else "prototype comparison without training"
    why_not_cuda = device.why_not_cuda if config.device == "auto" else ""
    log(
        f"{config.backbone.name}, {what}, fold {config.fold}, {config.shot}-shot, "
        f"{dataset.name}: {len(evaluator.episodes)} test episodes; {device.gpu or device.device}"
        + (f" ({why_not_cuda})" if why_not_cuda else "")
    )
    for note in dataset.notes:
        log(f"note: {note}")
    split = dataset.split(config.fold)
    for note in dataset.lost_masks([*split.train_indices, *split.test_indices], config.data.image_size):
        log(f"note: {note}", "yellow")


def _keep_batch(records: RunDirectory, batch: Batch, iteration: int, dataset: DefectDataset) -> str:
    """Write the batch that broke the training, and say where it is."""
    arrays = {name: getattr(batch, name) for name in ("query", "query_mask", "support", "support_mask")}
    names = [[dataset.names[i] for i in (e.query, *e.supports)] for e in batch.episodes]
    try:
        write_checkpoint(records.diverged, arrays, {"iteration": iteration, "episodes": names})
    except CannotWrite:
        return f"Its batch could not be kept; its images are {names}."
    return f"Its batch is kept in {records.diverged}."


def _result(trainer: Trainer, device: Runtime, status: str, reason: str | None, weights: str) -> Result:
    config, state, dataset = trainer.config, trainer.state, trainer.evaluator.dataset
    return {
        "status": status,
        "reason": reason,
        "warnings": list(state.warnings.values()),
        "best": state.best,
        "last": state.last,
        "untrained": state.untrained,
        "floor": state.floor,
        "config": config.model_dump(),
        "dataset": dataset_facts(dataset, config.fold, config.shot, len(trainer.evaluator.episodes)),
        "backbone_weights": weights,
        "device": device.gpu or device.device,
        "precision": device.precision,
        "threads": current_threads(),
        "versions": runtime.versions(),
        "git_commit": git_commit(),
        "seed": config.seed,
        "wall_seconds": round(state.seconds, 3),
        "iterations": state.iteration,
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def _conclusion(state: TrainingState) -> str:
    """The scores beside what they have to beat; nothing where nothing was trained."""
    best, last, untrained, baseline = state.best, state.last, state.untrained, state.floor
    if best is None or last is None or untrained is None or baseline is None:
        return ""
    below = " [yellow](this run ends below it)[/]" if last["miou"] < baseline["miou"] else ""
    return (
        f"best mIoU {best['miou']:.4f} (epoch {best['epoch']}), last {last['miou']:.4f}; "
        f"untrained {untrained['miou']:.4f}, training-free baseline {baseline['miou']:.4f}{below}. "
        f"{state.iteration} iterations in {state.seconds:.0f} s → "
    )


def hyperparameters(config: Config) -> dict[str, Any]:
    """The columns of TensorBoard's HParams tab, the most telling ones first."""
    return {
        "ablation": config.ablation.name,
        "backbone": config.backbone.name,
        "k": config.loss.k,
        "fold": config.fold,
        "shot": config.shot,
        "seed": config.seed,
        "recipe": config.recipe.name,
        "protocol": config.protocol.name,
        "profile": config.profile,
        "data": config.data.name,
        "method": config.method,
    }
