"""One experiment: data, model, training, evaluation, records. The loop over epochs stands here in plain sight."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cpanet import data, engine, runtime, watch
from cpanet.checkpoint.files import read_checkpoint, write_checkpoint
from cpanet.checkpoint.weights import MODEL_PREFIX, assign, load_backbone_weights, model_tensors
from cpanet.config import Config
from cpanet.config.recorded import differences
from cpanet.config.schema import Common
from cpanet.data.embedded import default_cache
from cpanet.data.memory import dataset_of
from cpanet.errors import UserError
from cpanet.features import FeatureBatch, FeatureCache, ImageFeatures, TrainingFeatures
from cpanet.files import CannotWrite
from cpanet.losses import LossTerms
from cpanet.models import CPANet, Protocol, PrototypeFloor
from cpanet.models.door import pass_door
from cpanet.models.initial import principal_projection, start_from
from cpanet.models.pretrained import find_weights, instructions
from cpanet.recipe import (
    WeightAverage,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
)
from cpanet.records import RunDirectory, TensorBoard, environment_facts, git_commit, pictures
from cpanet.records.run_directory import episode_rows
from cpanet.runtime import jt
from cpanet.signals import stop_signals

# what the runs of a process share
FEATURES = FeatureCache()
TRAINING_FEATURES = TrainingFeatures()
PROJECTIONS: dict[tuple, Any] = {}  # the last, as FEATURES
PRINCIPAL_IMAGES = 64  # training images from which a start takes its principal components
console = Console(highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """A line for the terminal; names of files and classes in it are taken as they are."""
    console.print(text, style=style, markup=False)


class Damaged(UserError):
    """A checkpoint that cannot be read."""


class OtherRun(UserError):
    """A checkpoint of another configuration or of other data."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after everything has been saved."""


@dataclass
class Best:
    """The epoch with the highest mIoU so far, and the last evaluated one, as ``result.json`` holds them."""

    epoch: int
    miou: float
    fb_iou: float
    class_iou: dict[str, float]


@dataclass
class Progression:
    """How far a run has come: what a checkpoint keeps beside the weights."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches of the next epoch already trained on
    iteration: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[list[Any]] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    untrained: dict[str, Any] | None = None
    floor: dict[str, Any] | None = None  # prototype comparison without training, on the same episodes
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    floor_episodes: list[dict[str, Any]] = field(default_factory=list)
    best_episodes: list[dict[str, Any]] = field(default_factory=list)
    last_episodes: list[dict[str, Any]] = field(default_factory=list)


def run(config: Config, directory: Path, resume: bool = False, shared: bool = False) -> float:
    """Train and evaluate as ``config`` says, into ``directory``; returns the best mIoU on the unseen classes.

    ``resume``: go on from the directory's checkpoint, where there is one, to the same end to the last digit.
    ``shared``: other runs of this process may be alike; what the backbone makes of training images is kept for them.
    Raises :class:`UserError` for what the user can put right, :class:`cpanet.engine.Diverged` for a loss that is not
    finite, :class:`Interrupted` after Ctrl-C or SIGTERM; ``result.json`` then says so in ``status`` and ``reason``.
    """
    experiment = Experiment(config, directory, shared)
    if resume:
        experiment.resume()
    return experiment.run()


class Experiment:
    """A run and everything it holds while it lasts."""

    def __init__(self, config: Config, directory: Path, shared: bool = False) -> None:
        self.config = config
        self.device = runtime.prepare(config.device)
        self.dataset = dataset_of(config.data, config.shot)
        self.episodes = data.test_episodes(
            self.dataset, config.fold, config.shot, config.evaluate.episode_seed, config.evaluate.episodes
        )
        self.model, weights = build_model(config)
        self.backbone_source = "random" if weights is None else weights.name
        # random weights depend on the seed
        self.backbone_weights = (
            ("random", config.seed) if weights is None else (str(weights), weights.stat().st_mtime_ns)
        )
        init = config.recipe.init
        if config.method == "cpanet" and (init.head, init.projection) == ("prototype", "principal"):
            self._start_from_training_images()
        self.optimizer, self.average = build_training(config, self.model)
        self.epochs = 0 if self.optimizer is None else config.train.epochs
        self.records = RunDirectory(directory)
        self.state = Progression()
        self.stopped: Callable[[], bool] = lambda: False
        self.started = time.perf_counter()
        # a GPU makes features faster than they are copied; a backbone in training mode makes new ones every time
        eligible = shared and self.device.device == "cpu" and config.protocol.backbone_mode == "eval"
        self.shared = TRAINING_FEATURES if eligible else None

    def _start_from_training_images(self) -> None:
        """The head's comparison starts in the principal components of what the backbone makes of training images."""
        config = self.config
        indices = self.dataset.split(config.fold).train_indices
        chosen = [int(i) for i in indices[:: max(1, len(indices) // PRINCIPAL_IMAGES)]]
        key = (*self._features_key(), "train", config.recipe.features, config.model.width)
        if key not in PROJECTIONS:
            PROJECTIONS.clear()
            features = ImageFeatures(self.model, self.dataset, chosen, config.data.image_size).numpy()
            normalised = pass_door(jt.array(features), config.recipe.features).numpy()
            PROJECTIONS[key] = principal_projection(normalised, config.model.width // 4)
            self.model.train()  # Jittor's eval() switches gradients off
        start_from(self.model, PROJECTIONS[key])

    # ------------------------------------------------------------------ the run

    def run(self) -> float:
        """The whole of it; see :func:`run`."""
        with self._loader() as loader, stop_signals(say) as self.stopped:
            return self._run(loader)

    def _run(self, loader: data.EpisodeLoader) -> float:
        config, state = self.config, self.state
        self.records.create()
        self.board = TensorBoard(self.records.path, purge_step=state.iteration or None)
        self.board.hyperparameters(hyperparameters(config), time.time())
        self._announce()
        status, reason = "failed", None
        try:
            with self._progress_bar() as progress:
                self._evaluate_untrained()
                self._evaluate_floor()
                if not self.epochs:
                    self._evaluate(0)
                for epoch in range(state.epoch, self.epochs):
                    self._train(loader, epoch, progress)
                    if (epoch + 1) % config.evaluate.every == 0 or epoch + 1 == self.epochs:
                        self._evaluate(epoch + 1)
                    state.epoch, state.batch = epoch + 1, 0
                    self.save_checkpoint()
            status = "completed"
        except KeyboardInterrupt as error:
            status = "interrupted"
            if isinstance(error, Interrupted):
                self.save_checkpoint()
            raise
        except engine.Diverged as error:
            kept = self._keep_batch(loader, error.iteration)
            status, reason = "diverged", f"{error} {kept}"
            error.args = (reason,)
            raise
        except CannotWrite as error:
            error.args = (f"{error} Then go on with: python run.py resume={self.records.path}",)
            reason = str(error)
            raise
        except Exception as error:
            reason = describe(error)
            raise
        finally:
            self._finish(status, reason)
        self._stop_if_asked()  # after the last epoch: this run is complete, a sweep ends here
        assert state.best is not None
        return float(state.best["miou"])

    def _loader(self) -> data.EpisodeLoader:
        config = self.config
        batches = len(self.dataset.split(config.fold).train_indices) // config.train.batch_size
        self.batches_per_epoch = min(batches, config.train.iterations_per_epoch or batches)
        self.total_iterations = self.batches_per_epoch * self.epochs
        workers = config.data.workers
        origin = self._origin_of_batches()
        if self.shared is not None and self.shared.complete(origin, self.epochs, self.batches_per_epoch):
            workers = 0  # there is nothing left for them to do
        return data.EpisodeLoader(
            self.dataset,
            config.fold,
            config.shot,
            config.seed,
            config.train.batch_size,
            config.data.image_size,
            workers=workers,
            sampling=config.recipe.sampling,
        )

    def _origin_of_batches(self) -> tuple:
        """What training batches behind the backbone depend on, besides epoch and position."""
        config = self.config
        return (
            config.seed,
            config.backbone.name,
            self.backbone_weights,
            self.dataset.fingerprint,
            config.fold,
            config.shot,
            config.train.batch_size,
            config.data.image_size,
            config.recipe.sampling,
        )

    def _batches(self, loader: data.EpisodeLoader, epoch: int) -> Iterator[data.Batch | FeatureBatch]:
        start, stop = self.state.batch, self.batches_per_epoch
        if self.shared is None:
            return islice(loader.epoch(epoch, start), stop - start)
        return self.shared.epoch(
            self.model, self._origin_of_batches(), epoch, start, stop, partial(loader.epoch, epoch)
        )

    def _train(self, loader: data.EpisodeLoader, epoch: int, progress: Any) -> None:
        config, state = self.config, self.state
        model, recipe = self.model, config.recipe
        objective = engine.Objective(
            config.loss.k, LossTerms(**recipe.loss.model_dump()), recipe.clip_grad_norm
        )
        batches = self._batches(loader, epoch)
        task = progress.add_task(
            f"epoch {epoch + 1}/{self.epochs}",
            total=self.batches_per_epoch,
            completed=state.batch,
            loss=float("nan"),
        )
        while state.batch < self.batches_per_epoch:
            pause = Pause(
                self.stopped, 60 * config.checkpoint.every_minutes, config.checkpoint.every_iterations
            )
            for step in engine.train_epoch(
                model,
                self.optimizer,
                batches,
                objective,
                self._rate,
                state.iteration,
                config.seed,
                self.average,
                pause=pause,
            ):
                state.iteration, state.batch = step.iteration + 1, state.batch + 1
                state.steps.append([step.iteration, step.main, step.auxiliary])
                self.board.step(step)
                progress.update(task, advance=1, loss=step.total)
            self._stop_if_asked()
            if state.batch < self.batches_per_epoch:
                self.save_checkpoint()
        progress.remove_task(task)

    def _stop_if_asked(self) -> None:
        if self.stopped():
            raise Interrupted

    def _rate(self, iteration: int) -> float:
        recipe = self.config.recipe
        return learning_rate(
            recipe.optimizer.lr,
            iteration,
            self.total_iterations,
            recipe.schedule.name,
            recipe.schedule.power,
            recipe.schedule.warmup_iterations,
        )

    # ------------------------------------------------------------------ evaluation

    def _features(self) -> ImageFeatures:
        config = self.config
        indices = self.dataset.split(config.fold).test_indices
        size = config.data.image_size
        if config.protocol.backbone_mode == "train":  # its BatchNorm statistics drift: nothing can be kept
            return ImageFeatures(self.model, self.dataset, indices, size)
        return FEATURES.get(self._features_key(), self.model, self.dataset, indices, size)

    def _features_key(self) -> tuple:
        """What decides the features of the fold's images."""
        config = self.config
        return (
            config.backbone.name,
            self.backbone_weights,
            self.dataset.fingerprint,
            config.fold,
            config.data.image_size,
            self.device.device,
        )

    def _score(self) -> engine.Evaluation:
        with self.average.swapped_in() if self.average is not None else nullcontext():
            return self._evaluated(self.model)

    def _evaluated(self, model: Any) -> engine.Evaluation:
        return engine.evaluate(
            model,
            self.dataset,
            self.episodes,
            self._features(),
            self.config.evaluate.batch_size,
            before_each=self._stop_if_asked,
        )

    def _evaluate_untrained(self) -> None:
        if self.state.untrained is not None or not self.epochs:
            return
        scores = self._named(0, self._score())
        self.state.untrained = scores
        self.state.rows.append(self._row(scores, None))
        console.print(f"untrained network: mIoU {scores['miou']:.4f}, FB-IoU {scores['fb_iou']:.4f}")

    def _evaluate_floor(self) -> None:
        """What the same features give on the same episodes without any training: what this run has to beat."""
        state = self.state
        if state.floor is not None or not self.epochs:
            return
        evaluation = self._evaluated(PrototypeFloor(self.model.backbone))
        state.floor = self._named(0, evaluation)
        rows = episode_rows("floor", 0, evaluation.results, self.dataset.names, self.dataset.classes)
        state.floor_episodes = rows
        console.print(
            f"training-free floor: mIoU {state.floor['miou']:.4f}, FB-IoU {state.floor['fb_iou']:.4f}"
        )

    def _evaluate(self, epoch: int) -> None:
        state = self.state
        evaluation = self._score()
        scores = self._named(epoch, evaluation)
        rows = [self.dataset.names, self.dataset.classes]
        state.last = scores
        state.last_episodes = episode_rows("last", epoch, evaluation.results, *rows)
        better = state.best is None or scores["miou"] > state.best["miou"]
        if better:
            state.best = scores
            state.best_episodes = episode_rows("best", epoch, evaluation.results, *rows)
            if self.epochs:
                self._write_best()
        recent = [main for _, main, _ in state.steps[-self.batches_per_epoch :]]
        loss = float(np.mean(recent)) if recent else None
        state.rows.append(self._row(scores, loss))
        defect = sum(int(np.count_nonzero(self.dataset.masks[e.query] == 1)) for e in self.episodes)
        self._warn("one class", watch.one_class([result.counts for result in evaluation.results], defect))
        self._warn("not moving", watch.not_moving([main for _, main, _ in state.steps]))
        self.board.evaluation(state.iteration, scores, state.best or scores)
        self._show_overlays(epoch)
        trained = "" if loss is None else f"epoch {epoch}/{self.epochs}: loss {loss:.4f}, "
        console.print(
            f"{trained}mIoU {scores['miou']:.4f}, FB-IoU {scores['fb_iou']:.4f}"
            + ("  ← best" if better else "")
        )
        self.records.write_metrics(state.rows)
        self.records.write_episodes([*state.floor_episodes, *state.best_episodes, *state.last_episodes])

    def _warn(self, kind: str, warning: str | None) -> None:
        """Once in a run for each kind; ``result.json`` keeps it, with the iteration."""
        if warning is not None and kind not in self.state.warnings:
            self.state.warnings[kind] = f"after iteration {self.state.iteration} {warning}"
            say(f"Warning: {self.state.warnings[kind]}", "yellow")

    def _named(self, epoch: int, evaluation: engine.Evaluation) -> dict[str, Any]:
        scores = evaluation.scores
        class_iou = {self.dataset.classes[c]: iou for c, iou in scores.class_iou.items()}
        return asdict(Best(epoch, scores.miou, scores.fb_iou, class_iou))

    def _row(self, scores: dict[str, Any], loss: float | None) -> dict[str, Any]:
        return {
            "epoch": scores["epoch"],
            "iteration": self.state.iteration,
            "loss_main": loss,
            "lr": self._rate(self.state.iteration),
            "miou": scores["miou"],
            "fb_iou": scores["fb_iou"],
            **{f"iou_{name}": iou for name, iou in scores["class_iou"].items()},
        }

    def _panels(self, count: int) -> list[pictures.Panel]:
        """``count`` test episodes, spread over the classes, with the current model's predictions."""
        chosen = [self.episodes[i] for i in np.linspace(0, len(self.episodes) - 1, count).astype(int)]
        panels = []
        for episode, difference in engine.predict_episodes(self.model, chosen, self._features(), 1):
            query, support = episode.query, episode.supports[0]
            panels.append(
                pictures.Panel(
                    self.dataset.images[support],
                    self.dataset.masks[support] == 1,
                    self.dataset.images[query],
                    self.dataset.masks[query] == 1,
                    engine.prediction(self.dataset, episode, difference),
                    f"{self.dataset.classes[episode.class_index]}: {Path(self.dataset.names[query]).name}",
                    self.dataset.names[query],
                    self.dataset.names[support],
                )
            )
        return panels

    def _show_overlays(self, epoch: int) -> None:
        for i, panel in enumerate(self._panels(min(self.config.log.overlays, len(self.episodes)))):
            name = panel.caption.replace(": ", "/")
            self.board.picture(
                f"episodes/{i + 1}/{name}", pictures.captioned_strip(panel), self.state.iteration
            )

    # ------------------------------------------------------------------ records

    def save_checkpoint(self) -> None:
        """``last.safetensors``: weights, optimiser, average, and how far the run has come. The one before is kept."""
        if self.optimizer is None:
            return
        state = self.state
        state.seconds += time.perf_counter() - self.started
        self.started = time.perf_counter()
        tensors = {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(self.model).items()}
        tensors.update({f"optimizer.{n}": t for n, t in optimizer_tensors(self.optimizer).items()})
        if self.average is not None:
            tensors.update({f"average.{n}": t for n, t in self.average.tensors().items()})
        if self.records.last.exists():
            self.records.last.replace(self.records.previous)
        write_checkpoint(self.records.last, tensors, {**self._description(), "progression": asdict(state)})

    def _keep_batch(self, loader: data.EpisodeLoader, iteration: int) -> str:
        """Write the batch that broke the training, which can be made again, and say where it is."""
        batch = next(loader.epoch(*divmod(iteration, self.batches_per_epoch)))
        arrays = {name: getattr(batch, name) for name in ("query", "query_mask", "support", "support_mask")}
        names = [[self.dataset.names[i] for i in (e.query, *e.supports)] for e in batch.episodes]
        try:
            write_checkpoint(self.records.diverged, arrays, {"iteration": iteration, "episodes": names})
        except CannotWrite:
            return f"Its batch could not be kept; its images are {names}."
        return f"Its batch is kept in {self.records.diverged}."

    def _write_best(self) -> None:
        with self.average.swapped_in() if self.average is not None else nullcontext():
            tensors = {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(self.model).items()}
        write_checkpoint(self.records.best, tensors, self._description())

    def _description(self) -> dict[str, Any]:
        split = self.dataset.split(self.config.fold)
        sides = [max(self.dataset.masks[i].shape) for i in split.train_indices]
        return {
            "config": self.config.model_dump(),
            "classes": list(self.dataset.classes),
            "train_classes": [self.dataset.classes[c] for c in split.train_classes],
            "picture_side": int(np.median(sides)),
            "dataset": self.dataset.fingerprint,
        }

    def resume(self) -> None:
        """Go on from the last checkpoint, or from the one before where that is damaged; from the start without any.

        Raises UserError where the checkpoint belongs to another configuration or to other data.
        """
        for path in (self.records.last, self.records.previous):
            if not path.exists():
                continue
            try:
                self.restore(path)
            except Damaged as error:
                say(str(error), "yellow")
                continue
            state = self.state
            console.print(
                f"going on from {path.name}: epoch {state.epoch + 1}, iteration {state.iteration}",
            )
            return
        if self.records.last.exists() or self.records.previous.exists():
            raise UserError(
                f"no checkpoint in {self.records.checkpoints} can be read. Remove that folder to start at the beginning."
            )

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that :meth:`save_checkpoint` wrote."""
        try:
            tensors, saved = read_checkpoint(path)
            progression = Progression(**saved["progression"])
            self._check_origin(path, saved["config"], saved["dataset"])
        except OtherRun:
            raise
        except (UserError, KeyError, TypeError) as error:  # the latter: a header with other content
            raise Damaged(
                str(error) if isinstance(error, UserError) else f"{path}: damaged header."
            ) from error

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

        assign(self.model, part(MODEL_PREFIX), str(path))
        restore_optimizer(self.optimizer, part("optimizer."))
        if self.average is not None:
            self.average.restore(part("average."))
        self.state = progression

    def _check_origin(self, path: Path, config: dict[str, Any], dataset: str) -> None:
        conflicts = differences(config, self.config.model_dump())
        if conflicts:
            raise OtherRun(
                f"{path} belongs to another configuration: {'; '.join(conflicts)}. "
                "Start it again in a directory of its own."
            )
        if dataset != self.dataset.fingerprint:
            raise OtherRun(
                f"{path} was trained on other images: {self.dataset.root} has changed since. Restore them, or start anew."
            )

    def _finish(self, status: str, reason: str | None) -> None:
        state = self.state
        state.seconds += time.perf_counter() - self.started
        # where the disk is full already, that is the error to tell
        with suppress(CannotWrite) if status == "failed" else nullcontext():
            self._write_result(status, reason)
        if status == "completed":
            try:
                self._write_figures()
            except OSError as error:  # everything that counts has been written
                say(f"Warning: the figures cannot be written: {error}", "yellow")
        self.board.close(status == "completed", time.time())
        if status == "completed":
            console.print(f"{self._conclusion()}{escape(str(self.records.path))}")

    def _conclusion(self) -> str:
        """The scores beside what they have to beat; nothing where nothing was trained."""
        state = self.state
        if None in (state.best, state.last, state.untrained, state.floor):
            return ""
        best, last, untrained, floor = (
            scores["miou"] for scores in (state.best, state.last, state.untrained, state.floor) if scores
        )
        assert state.best is not None
        below = " [yellow](this run ends below it)[/]" if last < floor else ""
        return (
            f"best mIoU {best:.4f} (epoch {state.best['epoch']}), last {last:.4f}; untrained {untrained:.4f}, "
            f"training-free floor {floor:.4f}{below}. {state.iteration} iterations in {state.seconds:.0f} s → "
        )

    def _write_result(self, status: str, reason: str | None) -> None:
        state = self.state
        self.records.write_result(
            {
                "status": status,
                "reason": reason,
                "warnings": list(state.warnings.values()),
                "best": state.best,
                "last": state.last,
                "untrained": state.untrained,
                "floor": state.floor,
                "config": self.config.model_dump(),
                "dataset": {
                    "name": self.dataset.name,
                    "fingerprint": self.dataset.fingerprint,
                    "fold": self.config.fold,
                    "shot": self.config.shot,
                    "test_episodes": len(self.episodes),
                    "notes": self.dataset.notes,
                },
                "backbone_weights": self.backbone_source,
                "device": self.device.gpu or self.device.device,
                "precision": self.device.precision,
                "versions": environment_facts(),
                "git_commit": git_commit(),
                "seed": self.config.seed,
                "wall_seconds": round(state.seconds, 3),
                "iterations": state.iteration,
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
        )

    def _write_figures(self) -> None:
        steps = [engine.Step(i, main, aux, main, 0.0, 0.0) for i, main, aux in self.state.steps]
        pictures.save_curves(self.records.figures / "curves.png", steps, self.state.rows)
        with self.average.swapped_in() if self.average is not None else nullcontext():
            panels = self._panels(min(8, len(self.episodes)))
        pictures.save_grid(self.records.figures / "episodes.png", panels)
        pictures.save_episodes(self.records.figures / "episodes", panels)

    def _announce(self) -> None:
        config = self.config
        what = f"ablation {config.ablation.name}" if self.epochs else "prototype comparison without training"
        console.print(
            f"{config.backbone.name}, {what}, fold {config.fold}, {config.shot}-shot, "
            f"{self.dataset.name}: {len(self.episodes)} test episodes; {self.device.gpu or self.device.device}"
            + (
                f" ({self.device.why_not_cuda})"
                if self.device.why_not_cuda and config.device == "auto"
                else ""
            )
        )
        for note in self.dataset.notes:
            say(f"note: {note}")

    @contextmanager
    def _progress_bar(self) -> Iterator[Progress]:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=current_process().name != "MainProcess",  # jobs side by side share one terminal
        ) as progress:
            yield progress


def build_model(config: Common) -> tuple[Any, Path | None]:
    """The model of ``config`` with its backbone weights, and the file that these came from (None: random)."""
    cache = default_cache()
    path, sentence = find_weights(config.backbone.name, config.backbone.weights, cache)
    if path is None and config.backbone.weights != "random":
        if config.profile == "paper":
            raise UserError(f"{sentence}. {instructions(config.backbone.name, cache)}")
        say(
            f"{sentence}; going on with random features. Its numbers say nothing about the paper's.", "yellow"
        )
    else:
        say(sentence)
    if config.method == "prototype":
        return PrototypeFloor(config.backbone.name, weights=path, seed=config.seed), path
    protocol = config.protocol.model_dump(exclude={"name"})
    model = CPANet(
        config.backbone.name,
        cpp=config.ablation.cpp,
        sa=config.ablation.sa,
        ssa=config.ablation.ssa,
        width=config.model.width,
        protocol=Protocol(**protocol),
        dropout=config.recipe.dropout,
        seed=config.seed,
        head_init=config.recipe.init.head,
        door=config.recipe.features,
    )
    if path is not None:
        load_backbone_weights(model, path)
    return model, path


def build_training(config: Config, model: Any) -> tuple[Any, Any]:
    """Optimiser and, where the recipe has one, the average of the weights; both None where nothing is trained."""
    if config.method == "prototype":
        return None, None
    decay = config.recipe.average.ema
    return build_optimizer(model, config.recipe.optimizer), None if decay is None else WeightAverage(
        model, decay
    )


def hyperparameters(config: Config) -> dict[str, Any]:
    """What TensorBoard's HParams tab shows as columns."""
    return {
        "backbone": config.backbone.name,
        "ablation": config.ablation.name,
        "k": config.loss.k,
        "fold": config.fold,
        "shot": config.shot,
        "seed": config.seed,
        "data": config.data.name,
        "profile": config.profile,
        "recipe": config.recipe.name,
        "protocol": config.protocol.name,
        "method": config.method,
    }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe(error: BaseException) -> str:
    """``error`` in one line, for ``result.json`` and tables."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")


class Pause:
    """Whether training should pause: when asked to stop, or ``seconds`` or ``steps`` after the start.

    Not before a step has been taken, unless asked to stop.
    """

    def __init__(self, stopped: Callable[[], bool], seconds: float, steps: int | None = None) -> None:
        self._stopped, self._most = stopped, steps
        self._due = time.monotonic() + seconds
        self._steps = -1

    def __call__(self) -> bool:
        self._steps += 1
        enough = time.monotonic() > self._due or self._steps == self._most
        return self._stopped() or (self._steps > 0 and enough)
