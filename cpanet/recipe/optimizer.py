"""SGD as the paper trains, AdamW as an alternative; Jittor's own, with their state as named arrays."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from cpanet.runtime import jt


def build_optimizer(model: Any, config: Any) -> Any:
    """The optimiser of ``config`` (a ``recipe.optimizer`` section) over the model's parameter groups."""
    groups = model.parameter_groups(config.lr, config.head_lr_multiplier)
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return jt.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay)
    return jt.nn.SGD(groups, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def gradient_sum(optimizer: Any) -> Any:
    """Sum of all gradients after ``backward``: one number, finite only where every one of them is."""
    # Jittor fuses additions into one kernel, but neither those of single numbers nor the parts of a concatenation
    sums = [g.sum().broadcast([2]) for group in optimizer.param_groups for g in group["grads"]]
    return functools.reduce(operator.add, sums).mean()


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Give every group ``rate`` times its own scale (1 for the comparison layers, 10 for the decoder's in the paper)."""
    optimizer.lr = rate
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


_STATE = ("values", "m")  # momentum buffers of SGD and squares of AdamW; first moments of AdamW


def optimizer_tensors(optimizer: Any) -> dict[str, np.ndarray]:
    """All buffers, by group, kind and position, and the count of steps."""
    tensors = {"n_step": np.array([optimizer.n_step], dtype=np.int64)}
    for g, group in enumerate(optimizer.param_groups):
        for kind in _STATE:
            for i, value in enumerate(group.get(kind, ())):
                tensors[f"{g}.{kind}.{i}"] = value.numpy()
    return tensors


def restore_optimizer(optimizer: Any, tensors: dict[str, np.ndarray]) -> None:
    """Put back what :func:`optimizer_tensors` returned, for the same model and recipe."""
    optimizer.n_step = int(tensors["n_step"][0])
    for g, group in enumerate(optimizer.param_groups):
        for kind in _STATE:
            for i, value in enumerate(group.get(kind, ())):
                value.assign(jt.array(tensors[f"{g}.{kind}.{i}"]))
