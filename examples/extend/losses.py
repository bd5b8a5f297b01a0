"""A loss term of one's own: the area that the network marks should be that of the defect."""

from __future__ import annotations

from typing import Any

from cpanet import runtime
from cpanet.losses import IGNORE, LossTerm
from cpanet.section import Positive


class Area(LossTerm):
    """``weight`` times the squared difference of marked and true area, as parts of the labelled pixels of an image."""

    weight: Positive = 1.0

    def __call__(self, logits: Any, target: Any) -> Any:
        """logits (N, 2, H, W), target (N, H, W) in {0, 1, 255} → scalar."""
        valid = (target != IGNORE).float32()
        excess = (runtime.jt.sigmoid(logits[:, 1] - logits[:, 0]) - (target == 1).float32()) * valid
        part = excess.sum(dims=[1, 2]) / valid.sum(dims=[1, 2]).maximum(1.0)
        return self.weight * (part * part).mean()
