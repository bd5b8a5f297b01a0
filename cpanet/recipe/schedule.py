"""Learning rate as a function of the iteration."""

import math
from typing import Annotated, ClassVar, Optional

from pydantic import Field

from cpanet.section import Component, Positive, Text


class Schedule(Component):
    """The course of the learning rate. Derive from it to add your own; :meth:`shape` is all that it needs.

    warmup_iterations: the first ones rise linearly to what the schedule gives there.
    """

    KEY: ClassVar[str] = "recipe.schedule"

    name: Optional[Text] = None  # in tables; None: the name of the class
    warmup_iterations: Annotated[int, Field(ge=0)] = 0

    def shape(self, progress: float) -> float:
        """Factor of the base rate; ``progress`` is 0 at the first iteration and 1 after the last."""
        raise NotImplementedError

    def factor(self, iteration: int, total: int) -> float:
        """The same, by the ``iteration`` (from 0) of ``total``, warm-up included."""
        factor = self.shape(min(iteration / max(total, 1), 1.0))
        if iteration < self.warmup_iterations:
            factor *= (iteration + 1) / self.warmup_iterations
        return factor


class Poly(Schedule):
    """(1 − progress)^power, the paper's."""

    power: Positive = 0.9

    def shape(self, progress: float) -> float:
        return float((1.0 - progress) ** self.power)


class Cosine(Schedule):
    """(1 + cos(π · progress)) / 2."""

    def shape(self, progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))
