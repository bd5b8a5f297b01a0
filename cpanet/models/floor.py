"""The floor: segmentation by prototype comparison of the frozen features, without any training.

A trained CPANet has to beat this. It follows the oldest idea of few-shot segmentation (PANet, Wang et al. 2019, without
its learning): a pixel is defect where its feature is closer, by cosine, to the mean feature of the support's defect than to
that of its background.
"""

from __future__ import annotations

import os
from typing import Any

from cpanet.models.backbones import build_backbone
from cpanet.models.initial import initialise
from cpanet.models.resample import enlarge
from cpanet.runtime import jt

nn = jt.nn


class PrototypeFloor(jt.nn.Module):
    """The same interface as :class:`cpanet.models.CPANet` as far as evaluation needs it; nothing is trained.

    ``backbone``: a name, or the backbone of a model, to be shared with it.
    ``stage`` names the features compared: ``f3`` (layer3), ``f2`` (layer2 on layer3's grid) or ``both``.
    """

    def __init__(
        self,
        backbone: str | jt.nn.Module = "vgg16_bn",
        stage: str = "f3",
        weights: str | os.PathLike | None = None,
        seed: int = 0,
    ) -> None:
        self.stage = stage
        if not isinstance(backbone, str):
            self.backbone: Any = backbone
            return
        self.backbone_name = backbone
        self.backbone = build_backbone(backbone)
        initialise(self, seed)
        for parameter in self.backbone.parameters():
            parameter.stop_grad()
        if weights is not None:
            from cpanet.checkpoint import load_backbone_weights

            load_backbone_weights(self, weights)

    def features(self, images):
        """Normalised RGB images (N, 3, H, W) → features (N, C, h, w), as CPANet's backbone gives them."""
        with jt.no_grad():
            return self.backbone(images).stop_grad()

    def encode_supports(self, features, masks):
        """features (B, K, C, h, w), masks (B, K, H, W) in {0, 1, 255} → None, prototypes (B, 2, C').

        Means over all positions of all K shots; positions under padding count for neither. A defect too small for the
        grid leaves a zero prototype, to which nothing is similar.
        """
        batch, shot, _, h, w = features.shape
        chosen = self.chosen(features.reshape(batch * shot, -1, h, w)).reshape(batch, shot, -1, h * w)
        flat = masks.reshape(batch * shot, 1, *masks.shape[2:])
        parts = []
        for label in (1, 0):
            weight = enlarge((flat == label).float32(), (h, w)).reshape(batch, shot, 1, h * w)
            parts.append((chosen * weight).sum(dims=[1, 3]) / weight.sum(dims=[1, 3]).maximum(1e-4))
        return None, jt.stack(parts, dim=1)

    def decode(self, features, prototypes, size: tuple[int, int]):
        """Query features (B, C, h, w), prototypes (B, 2, C') → logits (B, 2, H, W): background 0, cosine difference."""
        batch, _, h, w = features.shape
        query = _unit(self.chosen(features).reshape(batch, -1, h * w), 1)
        similarity = jt.matmul(_unit(prototypes, 2), query)
        difference = (similarity[:, 0] - similarity[:, 1]).reshape(batch, 1, h, w)
        return enlarge(jt.concat([jt.zeros_like(difference), difference], dim=1), size)

    def execute(self, query, support, support_mask):
        """query (B, 3, H, W), support (B, K, 3, H, W), support_mask (B, K, H, W) → logits (B, 2, H, W)."""
        batch, shot = support.shape[:2]
        supports = self.features(support.reshape(batch * shot, *support.shape[2:]))
        _, prototypes = self.encode_supports(supports.reshape(batch, shot, *supports.shape[1:]), support_mask)
        return self.decode(self.features(query), prototypes, (int(query.shape[2]), int(query.shape[3])))

    def chosen(self, features):
        middle = self.backbone.channels_f3
        return {"f3": features[:, :middle], "f2": features[:, middle:], "both": features}[self.stage]


def _unit(x, dim: int):
    return x / (x * x).sum(dim=dim, keepdims=True).maximum(1e-12).sqrt()
