"""The training-free baseline: segmentation by prototype comparison of the frozen features.

A trained CPANet has to beat this. It follows the oldest idea of few-shot segmentation (PANet, Wang et al. 2019, without
its learning): a pixel is defect where its feature is closer, by cosine, to the mean feature of the support's defect than to
that of its background.
"""

from __future__ import annotations

from typing import Any

from cpanet.models.init import initialise
from cpanet.models.masks import pool_by_area
from cpanet.models.parts import Backbone
from cpanet.models.upsample import upsample
from cpanet.runtime import jt

nn = jt.nn
UNPOOLED = "_unpooled"


class PrototypeBaseline(jt.nn.Module):
    """The same interface as :class:`cpanet.models.CPANet` as far as evaluation needs it; nothing is trained.

    ``backbone``: its features are compared.
    ``stage`` names them: ``f3`` (layer3), ``f2`` (layer2 on layer3's grid) or ``both``; ``f3_unpooled`` and
    ``both_unpooled`` are those of VGG before its last pooling (relu4_3, for 200×200 on 25×25), and for a ResNet, whose
    layer3 has no pooling, the same as without.
    ``seed``: of the backbone's random weights; None leaves them alone, for a backbone shared with a network.
    ``support_mask``: how masks come onto the feature grid, see :func:`cpanet.models.masks.shrink_mask`.
    """

    def __init__(
        self,
        backbone: Backbone,
        stage: str = "f3",
        seed: int | None = None,
        support_mask: str = "point",
    ) -> None:
        self.stage, self.support_mask = stage, support_mask
        self.unpooled = is_unpooled(stage)
        self.backbone: Any = backbone
        if seed is not None:
            initialise(self, seed)
        for parameter in self.backbone.parameters():
            parameter.stop_grad()

    def execute(self, query, support, support_mask):
        """query (B, 3, H, W), support (B, K, 3, H, W), support_mask (B, K, H, W) → logits (B, 2, H, W)."""
        batch, shot = support.shape[:2]
        supports = self.features(support.reshape(batch * shot, *support.shape[2:]))
        _, prototypes = self.encode_supports(supports.reshape(batch, shot, *supports.shape[1:]), support_mask)
        return self.decode(self.features(query), prototypes, (int(query.shape[2]), int(query.shape[3])))

    def features(self, images):
        """Normalised RGB images (N, 3, H, W) → features (N, C, h, w), of which :meth:`chosen` takes the stage's."""
        return frozen_features(self.backbone, images, self.unpooled)

    def encode_supports(self, features, masks):
        """features (B, K, C, h, w), masks (B, K, H, W) in {0, 1, 255} → None, prototypes (B, 2, C').

        Means over all positions of all K shots; positions under padding count for neither. A defect that is lost on the
        grid leaves a zero prototype, to which nothing is similar.
        """
        batch, shot, _, h, w = features.shape
        chosen = self.chosen(features.reshape(batch * shot, -1, h, w)).reshape(batch, shot, -1, h, w)
        return None, class_means(chosen, masks, self.support_mask)

    def decode(self, features, prototypes, size: tuple[int, int]):
        """Query features (B, C, h, w), prototypes (B, 2, C') → logits (B, 2, H, W): background 0, cosine difference."""
        difference = cosine_difference(self.chosen(features), prototypes)
        return upsample(jt.concat([jt.zeros_like(difference), difference], dim=1), size)

    def chosen(self, features):
        """The stage's channels of what :meth:`features` gives."""
        return stage_of(features, self.stage, self.backbone.channels_f3)


def is_unpooled(stage: str | None) -> bool:
    """Whether a stage needs the features before VGG's last pooling."""
    return stage is not None and stage.endswith(UNPOOLED)


def frozen_features(backbone: Any, images: Any, unpooled: bool, fused: bool = True) -> Any:
    """Normalised RGB images (N, 3, H, W) → the frozen backbone's features (N, C, h, w), no gradient."""
    plain = backbone.unpooled if unpooled else backbone
    faster = backbone.unpooled_fused if unpooled else backbone.fused
    with jt.no_grad():
        return (faster if fused else plain)(images).stop_grad()


def stage_of(features: Any, stage: str, channels_f3: int) -> Any:
    """The channels of ``stage`` among features [f3 ‖ f2] (N, C, h, w)."""
    name = stage.replace(UNPOOLED, "")
    if name == "both":
        return features
    return features[:, :channels_f3] if name == "f3" else features[:, channels_f3:]


def class_means(features: Any, masks: Any, support_mask: str) -> Any:
    """features (B, K, C, h, w), masks (B, K, H, W) in {0, 1, 255} → mean features of defect and of background (B, 2, C)."""
    batch, shot, _, h, w = features.shape
    flat = features.reshape(batch, shot, -1, h * w)
    labels = masks.reshape(batch * shot, 1, *masks.shape[2:])
    shrink = upsample if support_mask == "point" else pool_by_area
    parts = []
    for label in (1, 0):
        weight = shrink((labels == label).float32(), (h, w)).reshape(batch, shot, 1, h * w)
        parts.append((flat * weight).sum(dims=[1, 3]) / weight.sum(dims=[1, 3]).maximum(1e-4))
    return jt.stack(parts, dim=1)


def cosine_difference(query: Any, prototypes: Any) -> Any:
    """Query features (B, C, h, w), prototypes (B, 2, C) → cosine to the first minus cosine to the second (B, 1, h, w)."""
    batch, channels, h, w = query.shape
    similarity = jt.matmul(_unit(prototypes, 2), _unit(query.reshape(batch, channels, h * w), 1))
    return (similarity[:, 0] - similarity[:, 1]).reshape(batch, 1, h, w)


def _unit(x, dim: int):
    return x / (x * x).sum(dim=dim, keepdims=True).maximum(1e-12).sqrt()
