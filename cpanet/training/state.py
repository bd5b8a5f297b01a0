"""The progress of a run, as numbers alone: what its checkpoint keeps beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cpanet.records.result_file import ScoresOfEpoch


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
