"""A schedule of one's own: the rate falls in steps."""

from __future__ import annotations

from cpanet.recipe import Schedule
from cpanet.section import Positive, Probability


class Steps(Schedule):
    """The base rate, multiplied by ``by`` at each of ``at``, which are parts of the training."""

    at: list[Probability]
    by: Positive = 0.1

    def shape(self, progress: float) -> float:
        """``progress`` is 0 at the first iteration and 1 after the last."""
        return self.by ** sum(progress >= part for part in self.at)
