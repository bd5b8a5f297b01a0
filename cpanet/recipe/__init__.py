"""How the weights are trained: optimiser, learning rate over time, averaging. Mirrors ``conf/recipe``."""

from cpanet.recipe.average import WeightAverage
from cpanet.recipe.episodes import EpisodeTransform
from cpanet.recipe.optimizer import (
    SGD,
    AdamW,
    Optimizer,
    gradient_sum,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from cpanet.recipe.schedule import Cosine, Poly, Schedule

__all__ = [
    "SGD",
    "AdamW",
    "Cosine",
    "EpisodeTransform",
    "Optimizer",
    "Poly",
    "Schedule",
    "WeightAverage",
    "gradient_sum",
    "optimizer_tensors",
    "restore_optimizer",
    "set_learning_rate",
]
