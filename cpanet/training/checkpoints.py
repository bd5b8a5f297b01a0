"""Checkpoints of a training and their files: ``last``, the one before it, and ``best``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpanet.checkpoint.files import read_checkpoint, write_checkpoint
from cpanet.checkpoint.names import below
from cpanet.checkpoint.weights import AVERAGE_PREFIX, MODEL_PREFIX, assign, model_tensors
from cpanet.config.resume import differences
from cpanet.console import log
from cpanet.errors import UserError
from cpanet.recipe import WeightAverage, optimizer_tensors, restore_optimizer
from cpanet.records.result_file import ScoresOfEpoch
from cpanet.records.run_directory import RunDirectory


@dataclass
class TrainingState:
    """Saved as JSON with every checkpoint, and restored from it. Scores are as ``result.json`` holds them."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches of the next epoch already trained on
    iteration: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.csv
    steps: list[list[Any]] = field(default_factory=list)  # iteration, main loss, auxiliary loss
    warnings: dict[str, str] = field(default_factory=dict)
    untrained: ScoresOfEpoch | None = None
    floor: ScoresOfEpoch | None = None  # the training-free baseline on the same episodes
    best: ScoresOfEpoch | None = None
    last: ScoresOfEpoch | None = None
    floor_episodes: list[dict[str, Any]] = field(default_factory=list)  # rows of episodes.csv
    best_episodes: list[dict[str, Any]] = field(default_factory=list)
    last_episodes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """The main loss of every iteration, in order."""
        return [main for _, main, _ in self.steps]


class Learner(NamedTuple):
    """A model, its optimiser (None: nothing is trained) and the average of its weights (None: the recipe has none)."""

    model: Any
    optimizer: Any
    average: WeightAverage | None

    @contextmanager
    def scored_weights(self) -> Iterator[Any]:
        """The model with the weights that are scored, drawn and kept as the best: the averaged ones where there are."""
        if self.average is None:
            yield self.model
            return
        with self.average.swapped_in():
            yield self.model


class Checkpoints:
    """Writes and reads the files that a run goes on from.

    ``description``: what describes the run in them, at least its ``config`` and the fingerprint of its ``dataset``.
    """

    def __init__(self, records: RunDirectory, learner: Learner, description: Mapping[str, Any]) -> None:
        self._records, self._learner, self._description = records, learner, dict(description)

    def save(self, state: TrainingState) -> None:
        """``last.safetensors``: weights, optimiser, average, and ``state``. The one before is kept."""
        model, optimizer, average = self._learner
        if optimizer is None:
            return
        tensors = {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(model).items()}
        tensors.update({f"optimizer.{n}": t for n, t in optimizer_tensors(optimizer).items()})
        if average is not None:
            tensors.update({AVERAGE_PREFIX + n: t for n, t in average.tensors().items()})
            tensors.update({f"start.{n}": t for n, t in average.start_tensors().items()})
        if self._records.last.exists():
            self._records.last.replace(self._records.previous)
        write_checkpoint(self._records.last, tensors, {**self._description, "progression": asdict(state)})

    def save_best(self) -> None:
        """``best.safetensors``: the weights that are scored."""
        with self._learner.scored_weights() as model:
            tensors = {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(model).items()}
        write_checkpoint(self._records.best, tensors, self._description)

    def restore(self) -> TrainingState | None:
        """Put back the last checkpoint, or the one before where that is damaged; None without any.

        Raises UserError where it belongs to another configuration or to other data, and where none can be read.
        """
        found = [path for path in (self._records.last, self._records.previous) if path.exists()]
        for path in found:
            try:
                tensors, saved = read_checkpoint(path)
                state = TrainingState(**saved["progression"])
                origin = saved["config"], saved["dataset"]
            except (UserError, KeyError, TypeError) as error:  # the latter: a header with other content
                log(str(error) if isinstance(error, UserError) else f"{path}: damaged header.", "yellow")
                continue
            self._check_origin(path, *origin)
            self._put_back(tensors, path)
            log(f"going on from {path.name}: epoch {state.epoch + 1}, iteration {state.iteration}")
            return state
        if found:
            folder = self._records.checkpoints
            raise UserError(
                f"no checkpoint in {folder} can be read. Remove that folder to start at the beginning."
            )
        return None

    def _put_back(self, tensors: Mapping[str, np.ndarray], path: Path) -> None:
        model, optimizer, average = self._learner
        assign(model, below(MODEL_PREFIX, tensors), str(path))
        restore_optimizer(optimizer, below("optimizer.", tensors))
        if average is not None:
            average.restore(below(AVERAGE_PREFIX, tensors), below("start.", tensors))

    def _check_origin(self, path: Path, config: dict[str, Any], dataset: str) -> None:
        conflicts = differences(config, self._description["config"])
        if conflicts:
            raise UserError(
                f"{path} belongs to another configuration: {'; '.join(conflicts)}. "
                "Start it again in a directory of its own."
            )
        if dataset != self._description["dataset"]:
            where = self._description["config"]["data"]["root"] or "the data set"
            raise UserError(
                f"{path} was trained on other images: {where} has changed since. Restore them, or start anew."
            )
