"""How the weights are trained: optimiser, learning rate over time, averaging. Mirrors ``conf/recipe``."""

from cpanet.recipe.average import WeightAverage
from cpanet.recipe.optimizer import (
    build_optimizer,
    gradient_sum,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from cpanet.recipe.schedule import learning_rate

__all__ = [
    "WeightAverage",
    "build_optimizer",
    "gradient_sum",
    "learning_rate",
    "optimizer_tensors",
    "restore_optimizer",
    "set_learning_rate",
]
