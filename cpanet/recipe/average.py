"""A running average of the weights, for evaluation (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cpanet import runtime


class WeightAverage:
    """Exponential average of the trained parameters: ``a ← d·a + (1 − d)·w`` after each step.

    Early on d is (1 + n)/(10 + n) where that is smaller, so that the random start is forgotten quickly.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._live = {name: p for name, p in model.named_parameters() if not p.is_stop_grad()}
        self._average = {name: p.clone().stop_grad() for name, p in self._live.items()}

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in self._live.items():
            average = self._average[name]
            average.update(average * decay + parameter.detach() * (1.0 - decay))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model computes with the averages inside, with its own weights again afterwards."""
        kept = {name: p.numpy() for name, p in self._live.items()}
        try:
            for name, parameter in self._live.items():
                parameter.assign(self._average[name].detach())
            yield
        finally:
            for name, parameter in self._live.items():
                parameter.assign(runtime.jt.array(kept[name]))

    def tensors(self) -> dict[str, np.ndarray]:
        """State for a checkpoint."""
        return {"steps": np.array([self.steps]), **{n: a.numpy() for n, a in self._average.items()}}

    def restore(self, tensors: dict[str, np.ndarray]) -> None:
        """Put back what :meth:`tensors` returned."""
        self.steps = int(tensors["steps"][0])
        for name, average in self._average.items():
            average.assign(runtime.jt.array(tensors[name]))
