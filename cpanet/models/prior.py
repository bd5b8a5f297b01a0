"""The residual prior: the training-free comparison of query and support, added to the network's logits.

What the baseline can do, the network then need not learn and cannot unlearn; the head, which starts small, learns what is
to be put right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cpanet.models.prototype_baseline import class_means, cosine_difference, stage_of
from cpanet.models.upsample import upsample
from cpanet.runtime import jt

SCALE = 20.0  # logits for a difference of cosines of 1 when training starts
HEAD = 0.1  # start of the head's classifier, as a fraction of its start without a prior


class ResidualPrior(jt.nn.Module):
    """``scale`` times the cosine difference of frozen features, plus ``shift``; both are learnt.

    ``stage``: the features compared, one of :data:`cpanet.config.schema.Stage`.
    """

    head_start = HEAD

    def __init__(self, stage: str, channels: int, channels_f3: int) -> None:
        self.stage, self.channels_f3 = stage, channels_f3
        self.channels = {"f3": channels_f3, "f2": channels - channels_f3}.get(stage.split("_")[0], channels)
        self.scale, self.shift = jt.zeros(1), jt.zeros(1)

    def initial(self, name: str, shape: tuple, scheme: str, rng: Any) -> np.ndarray:
        """The prior alone decides at first; the head, which starts small, adds to it."""
        del scheme, rng
        return np.full(shape, SCALE if name == "scale" else 0.0)

    def encode_supports(self, features: Any, masks: Any, support_mask: str) -> Any:
        """Frozen features (B, K, C, h, w), masks (B, K, H, W) → prototypes of defect, then of background, (B, 2C')."""
        batch, shot, _, h, w = features.shape
        chosen = stage_of(features.reshape(batch * shot, -1, h, w), self.stage, self.channels_f3)
        means = class_means(chosen.reshape(batch, shot, -1, h, w), masks, support_mask)
        return means.reshape(batch, -1).stop_grad()

    def logit(self, features: Any, prototypes: Any, size: tuple[int, int]) -> Any:
        """Frozen query features (B, C, h, w), prototypes (B, 2C') → what is added to the defect's logit, (B, 1, H, W)."""
        chosen = stage_of(features, self.stage, self.channels_f3)
        difference = cosine_difference(chosen, prototypes.reshape(prototypes.shape[0], 2, -1)).stop_grad()
        return upsample(difference, size) * self.scale + self.shift
