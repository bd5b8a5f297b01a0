"""SGD as the paper trains, AdamW as an alternative; Jittor's own, with their state as named arrays."""

import functools
import operator
from typing import Any, ClassVar, Optional

import numpy as np

from cpanet import runtime
from cpanet.section import Component, Fraction, NonNegative, Positive, Text


class Optimizer(Component):
    """The rule by which weights follow their gradients. Derive from it to add your own; :meth:`over` is all that it needs.

    lr: base learning rate, which the schedule changes. head_lr_multiplier: what the decoder's rate is multiplied by.
    """

    KEY: ClassVar[str] = "recipe.optimizer"

    name: Optional[Text] = None  # in tables; None: the name of the class
    lr: Positive
    head_lr_multiplier: Positive = 1.0

    def over(self, groups: list[dict[str, Any]]) -> Any:
        """One of Jittor's optimisers over ``groups`` of parameters, each with its ``lr``.

        Everything that it has to remember between steps is in lists of its groups, one entry a parameter.
        """
        raise NotImplementedError

    def build(self, model: Any) -> Any:
        """Jittor's optimiser over the parameter groups of ``model``."""
        groups = model.parameter_groups(self.lr, self.head_lr_multiplier)
        return self.over([group for group in groups if group["params"]])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: Fraction = 0.0
    weight_decay: NonNegative = 0.0

    def over(self, groups: list[dict[str, Any]]) -> Any:
        return runtime.jt.nn.SGD(groups, self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


class AdamW(Optimizer):
    """Adam with decoupled weight decay; ``momentum`` is its first beta."""

    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.0

    def over(self, groups: list[dict[str, Any]]) -> Any:
        betas = (self.momentum, 0.999)
        return runtime.jt.optim.AdamW(groups, self.lr, betas=betas, weight_decay=self.weight_decay)


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


def optimizer_tensors(optimizer: Any) -> dict[str, np.ndarray]:
    """All buffers, by group, kind and position, and the count of steps."""
    found = {name: value.numpy() for name, value in _state(optimizer).items()}
    return {"n_step": np.array([optimizer.n_step], dtype=np.int64), **found}


def restore_optimizer(optimizer: Any, tensors: dict[str, np.ndarray]) -> None:
    """Put back what :func:`optimizer_tensors` returned, for the same model and recipe."""
    optimizer.n_step = int(tensors["n_step"][0])
    for name, value in _state(optimizer).items():
        value.assign(runtime.jt.array(tensors[name]))


def _state(optimizer: Any) -> dict[str, Any]:
    """State of an optimiser, such as SGD's ``values``, AdamW's ``values`` and ``m``: one variable a parameter."""
    return {
        f"{g}.{kind}.{i}": value
        for g, group in enumerate(optimizer.param_groups)
        for kind, values in group.items()
        if kind not in ("params", "grads") and isinstance(values, list)
        for i, value in enumerate(values)
    }
