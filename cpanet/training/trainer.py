"""The loop over epochs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpanet import engine, training_warnings
from cpanet.config import Config
from cpanet.records.result_file import ScoresOfEpoch
from cpanet.records.run_directory import episode_rows
from cpanet.records.run_logger import RunLogger
from cpanet.training.batches import TrainingBatches
from cpanet.training.checkpoints import Checkpoints, Learner, TrainingState
from cpanet.training.evaluator import Evaluator


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after everything has been saved."""


@dataclass
class Trainer:
    """Trains a model epoch by epoch and evaluates it on the way. Values go to ``logger``, weights to ``checkpoints``.

    ``baseline``: a model without training, to be beaten on the same episodes. ``state`` says how far the run has come.
    """

    config: Config
    learner: Learner
    baseline: Any
    batches: TrainingBatches
    evaluator: Evaluator
    checkpoints: Checkpoints
    logger: RunLogger
    state: TrainingState

    def __post_init__(self) -> None:
        self.epochs = 0 if self.learner.optimizer is None else self.config.train.epochs
        self._stopped: Callable[[], bool] = lambda: False
        self._clock = time.perf_counter()

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Train from where ``state`` stands to the last epoch; ends at the next step once ``stopped()`` says so.

        Raises :class:`Interrupted` then, and :class:`cpanet.engine.Diverged` for a loss that is not finite.
        """
        self._stopped = stopped
        state = self.state
        try:
            self.evaluate_before_training()
            for epoch in range(state.epoch, self.epochs):
                self.train(epoch)
                if (epoch + 1) % self.config.evaluate.every == 0 or epoch + 1 == self.epochs:
                    self.evaluate(epoch + 1)
                state.epoch, state.batch = epoch + 1, 0
                self.save()
        except Interrupted:
            self.save()
            raise

    def train(self, epoch: int) -> None:
        """The rest of an epoch, with a checkpoint in between where one is due."""
        config, state, per_epoch = self.config, self.state, self.batches.per_epoch
        objective = engine.Objective(config.loss.k, config.recipe.loss, config.recipe.clip_grad_norm)
        model, optimizer, average = self.learner
        batches = self.batches.epoch(epoch, state.batch)
        with self.logger.epoch(epoch, self.epochs, state.batch, per_epoch):
            while state.batch < per_epoch:
                steps = engine.train_epoch(
                    model,
                    optimizer,
                    batches,
                    objective,
                    self.learning_rate,
                    state.iteration,
                    config.seed,
                    average,
                    pause=self._pause_condition(),
                )
                for step in steps:
                    state.iteration, state.batch = step.iteration + 1, state.batch + 1
                    state.steps.append([step.iteration, step.main, step.auxiliary])
                    self.logger.step(step)
                self.stop_if_asked()
                if state.batch < per_epoch:
                    self.save()

    def evaluate_before_training(self) -> None:
        """The untrained network and the training-free baseline; where nothing is trained, the one evaluation there is."""
        state = self.state
        if not self.epochs:
            self.evaluate(0)
            return
        if state.untrained is None:
            with self.learner.scored_weights() as model:
                state.untrained = self._scores(0, self.evaluator.evaluate(model, self.stop_if_asked))
            state.rows.append(self._row(state.untrained, None))
            self.logger.untrained(state.untrained)
        if state.floor is None:
            evaluation = self.evaluator.evaluate(self.baseline, self.stop_if_asked)
            state.floor_episodes = self._episodes("floor", 0, evaluation)
            state.floor = self._scores(0, evaluation)
            self.logger.baseline(state.floor)

    def evaluate(self, epoch: int) -> None:
        """Scores and pictures after ``epoch`` epochs, with the weights that are scored."""
        state = self.state
        with self.learner.scored_weights() as model:
            evaluation = self.evaluator.evaluate(model, self.stop_if_asked)
            figures = self.evaluator.figures(model, self.config.log.overlays)
        scores = self._scores(epoch, evaluation)
        state.last, state.last_episodes = scores, self._episodes("last", epoch, evaluation)
        better = state.best is None or scores["miou"] > state.best["miou"]
        if better:
            state.best, state.best_episodes = scores, self._episodes("best", epoch, evaluation)
            if self.epochs:
                self.checkpoints.save_best()
        recent = state.losses[-self.batches.per_epoch :]
        loss = float(np.mean(recent)) if recent else None
        state.rows.append(self._row(scores, loss))
        counts = [result.counts for result in evaluation.results]
        self._warn("one class", training_warnings.one_class(counts, self.evaluator.defect_pixels))
        starts_low = self.config.recipe.prior is not None
        self._warn("not moving", training_warnings.not_moving(state.losses, starts_low))
        self.logger.evaluation(state, loss, self.epochs, better, figures)

    def save(self) -> None:
        """``last.safetensors``, with the time that the run has taken so far."""
        self.stop_clock()
        self.checkpoints.save(self.state)

    def stop_clock(self) -> None:
        """Add the seconds since the last call to the state's."""
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now

    def stop_if_asked(self) -> None:
        """Raises :class:`Interrupted` once somebody has asked for the end."""
        if self._stopped():
            raise Interrupted

    def learning_rate(self, iteration: int) -> float:
        """The rate of the recipe's schedule."""
        recipe = self.config.recipe
        total = self.batches.per_epoch * self.epochs
        return recipe.optimizer.lr * recipe.schedule.factor(iteration, total)

    def _pause_condition(self) -> Callable[[], bool]:
        """Asked before each step: a stop was asked for or, once a step has been taken, a checkpoint is due."""
        often, steps_taken = self.config.checkpoint, itertools.count()
        due = time.monotonic() + 60 * often.every_minutes

        def pause() -> bool:
            steps = next(steps_taken)
            enough = time.monotonic() > due or steps == often.every_iterations
            return self._stopped() or (steps > 0 and enough)

        return pause

    def _warn(self, kind: str, warning: str | None) -> None:
        """Once in a run for each kind; ``result.json`` keeps it, with the iteration."""
        if warning is not None and kind not in self.state.warnings:
            self.state.warnings[kind] = f"after iteration {self.state.iteration} {warning}"
            self.logger.warning(self.state.warnings[kind])

    def _scores(self, epoch: int, evaluation: engine.Evaluation) -> ScoresOfEpoch:
        scores, classes = evaluation.scores, self.evaluator.dataset.classes
        return {
            "epoch": epoch,
            "miou": scores.miou,
            "fb_iou": scores.fb_iou,
            "class_iou": {classes[c]: iou for c, iou in scores.class_iou.items()},
        }

    def _episodes(self, which: str, epoch: int, evaluation: engine.Evaluation) -> list[dict[str, Any]]:
        dataset = self.evaluator.dataset
        return episode_rows(which, epoch, evaluation.results, dataset.names, dataset.classes)

    def _row(self, scores: ScoresOfEpoch, loss: float | None) -> dict[str, Any]:
        """Of ``metrics.csv``."""
        return {
            "epoch": scores["epoch"],
            "iteration": self.state.iteration,
            "loss_main": loss,
            "lr": self.learning_rate(self.state.iteration),
            "miou": scores["miou"],
            "fb_iou": scores["fb_iou"],
            **{f"iou_{name}": iou for name, iou in scores["class_iou"].items()},
        }
