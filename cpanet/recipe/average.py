"""The weights that are scored: a running average (Polyak averaging), and a share of the untrained ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cpanet import runtime


class WeightAverage:
    """Exponential average of the trained parameters: ``a ← d·a + (1 − d)·v`` after each step.

    Early on d is (1 + n)/(10 + n) where that is smaller, so that the random start is forgotten quickly; without ``decay``
    it is 0. v is the weights w or, with ``untrained`` = s above 0, ``(1 − s)·w + s·w₀`` with the weights w₀ that training
    started from: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, where s is 1 − α.
    """

    def __init__(self, model: Any, decay: float | None, untrained: float = 0.0) -> None:
        self.decay, self.untrained = decay or 0.0, untrained
        self.steps = 0
        self._live = {name: p for name, p in model.named_parameters() if not p.is_stop_grad()}
        self._average = self._copies()
        self._start = self._copies() if untrained else {}

    def _copies(self) -> dict[str, Any]:
        return {name: p.clone().stop_grad() for name, p in self._live.items()}

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        decay, share = min(self.decay, (1 + self.steps) / (10 + self.steps)), self.untrained
        for name, parameter in self._live.items():
            average, now = self._average[name], parameter.detach()
            if share:
                now = now * (1.0 - share) + self._start[name] * share
            average.update(average * decay + now * (1.0 - decay))

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

    def start_tensors(self) -> dict[str, np.ndarray]:
        """The weights that training started from, for a checkpoint; empty where they have no share."""
        return {name: start.numpy() for name, start in self._start.items()}

    def restore(self, tensors: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> None:
        """Put back what :meth:`tensors` and :meth:`start_tensors` returned."""
        self.steps = int(tensors["steps"][0])
        for held, stored in ((self._average, tensors), (self._start, start)):
            for name, value in held.items():
                value.assign(runtime.jt.array(stored[name]))
