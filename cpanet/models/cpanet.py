"""CPANet (Feng et al., IEEE TIM 2023, doi 10.1109/TIM.2023.3246519): backbone, prototype, comparison, decoder.

Notation of all shapes: B episodes, K shots, image H×W, feature grid h×w, C = ``width`` channels (256 in the paper).
"""

from __future__ import annotations

import os
from typing import Any

from cpanet.losses import CROSS_ENTROPY, LossTerms, segmentation_loss
from cpanet.models.backbones import build_backbone
from cpanet.models.cpp import CrossPositionProxy, masked_average
from cpanet.models.door import pass_door
from cpanet.models.dropout import ChannelDropout, DropoutSource, scale_channels
from cpanet.models.initial import initialise
from cpanet.models.protocol import CORRECTED, Protocol
from cpanet.models.resample import enlarge
from cpanet.models.sa import SupportAuxiliary
from cpanet.models.ssa import SpaceSqueezeAttention
from cpanet.ops import Conv, conv2d, conv3x3_relu
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.2


class CPANet(jt.nn.Module):
    """The whole network.

    Parameters
    ----------
    backbone: one of :data:`cpanet.models.backbones.BACKBONES`; frozen.
    cpp: cross position proxy; off: masked global average pooling.
    sa: support auxiliary branch (training only); off: no auxiliary loss.
    ssa: space squeeze attention decoder; off: one 1×1 convolution.
    weights: file with the backbone's ImageNet weights (torchvision names, ``.pth`` or ``.safetensors``); None: random.
    width: channels C of the head.
    protocol: corrected or released behaviour.
    dropout: False sets every dropout rate to 0.
    head_init: how the head's weights start, see :func:`cpanet.models.initial.initialise`.
    door: how features are normalised before the head, see :func:`cpanet.models.door.pass_door`.
    seed: of the head's (and, without ``weights``, the backbone's) initialisation and of the dropout masks.
    """

    def __init__(
        self,
        backbone: str = "vgg16_bn",
        cpp: bool = True,
        sa: bool = True,
        ssa: bool = True,
        weights: str | os.PathLike | None = None,
        width: int = 256,
        protocol: Protocol = CORRECTED,
        dropout: bool = True,
        seed: int = 0,
        head_init: str = "released",
        door: str = "plain",
    ) -> None:
        self.width = width
        self.protocol = protocol
        self.seed = seed
        self.door = door
        self.dropout_source = DropoutSource(seed)
        rate = 1.0 if dropout else 0.0
        self.backbone_name = backbone
        self.backbone = build_backbone(backbone)
        channels = self.backbone.channels
        self.down_query = Conv(channels, width, 1, bias=False)
        self.down_supp = Conv(channels, width, 1, bias=False)
        self.cpp: Any = CrossPositionProxy(width) if cpp else None
        self.compare1 = Conv(2 * width, width, 1, bias=False)
        self.compare2 = Conv(width, width, 3, padding=1, bias=False)
        self.refine1 = Conv(width, width, 3, padding=1, bias=False)
        self.refine2 = Conv(width, width, 3, padding=1, bias=False)
        self.drop = ChannelDropout(DROPOUT * rate, self.dropout_source)
        self.ssa: Any = SpaceSqueezeAttention(width, self.dropout_source, rate=0.1 * rate) if ssa else None
        self.classify: Any = None if ssa else Conv(width, 2, 1)
        self.sa: Any = SupportAuxiliary(width, self.dropout_source, rate=0.2 * rate) if sa else None
        initialise(self, seed, head_init)
        for parameter in self.backbone.parameters():
            parameter.stop_grad()
        if weights is not None:
            from cpanet.checkpoint import load_backbone_weights

            load_backbone_weights(self, weights)

    # ------------------------------------------------------------------ the parts, in the order of the paper's figure

    def features(self, images):
        """Frozen backbone: normalised RGB images (N, 3, H, W) → (N, C_backbone, h, w), no gradient."""
        with jt.no_grad():
            return self.backbone(images).stop_grad()

    def encode_support(self, features, mask):
        """features (N, C_b, h, w), mask (N, H, W) with 1 = defect → support feature (N, C, h, w), prototype (N, C)."""
        feature = self.drop(nn.relu(self.down_supp(pass_door(features, self.door))))
        small = enlarge((mask == 1).float32().unsqueeze(1), tuple(feature.shape[2:]))
        if self.cpp is None:
            return feature, masked_average(feature, small)
        return feature, self.cpp(feature * small)

    def encode_supports(self, features, masks):
        """features (B, K, C_b, h, w), masks (B, K, H, W) → per shot a list of (feature, prototype), and their mean (B, C).

        Shot by shot, because BatchNorm in CPP takes its statistics from one shot at a time, as the released code does.
        """
        shots = [self.encode_support(features[:, i], masks[:, i]) for i in range(features.shape[1])]
        total = shots[0][1]
        for _, prototype in shots[1:]:
            total = total + prototype
        divisor = len(shots) if self.protocol.prototype_average == "shots" else features.shape[0]
        return shots, total / divisor

    def decode(self, features, prototype, size: tuple[int, int]):
        """Query features (B, C_b, h, w), prototype (B, C), size (H, W) → logits (B, 2, H, W)."""
        query = self.drop(nn.relu(self.down_query(pass_door(features, self.door))))
        kernel = self.compare1.weight
        # the prototype is the same at every position: its half of the 1×1 convolution is one vector an episode
        constant = jt.matmul(prototype, kernel[:, : self.width].reshape(self.width, self.width).t())
        x = conv2d(query, kernel[:, self.width :]) + constant.reshape(*constant.shape, 1, 1)
        kept = self.drop.factors(x.shape[0], self.width)
        x = scale_channels(nn.relu(x), kept)
        for conv in (self.compare2, self.refine1, self.refine2):
            following = self.drop.factors(x.shape[0], self.width)
            x = conv3x3_relu(x, conv.weight, kept, following)
            kept = following
        if self.ssa is not None:
            return self.ssa(x, size)
        return enlarge(self.classify(x), size)

    # ------------------------------------------------------------------ whole passes

    def execute(self, query, support, support_mask):
        """query (B, 3, H, W), support (B, K, 3, H, W), support_mask (B, K, H, W) → logits (B, 2, H, W).

        Images are normalised RGB; in the mask 1 is defect and everything else is not; H and W are multiples of 8.
        """
        query_features, support_features = self.episode_features(query, support)
        _, prototype = self.encode_supports(support_features, support_mask)
        return self.decode(query_features, prototype, _size(query))

    def losses(
        self, query, query_mask, support, support_mask, k: float = 0.4, terms: LossTerms = CROSS_ENTROPY
    ):
        """Main and auxiliary loss of a batch; the total is ``main + k · auxiliary``.

        query_mask (B, H, W) and support_mask (B, K, H, W) hold 0, 1 and 255 = ignored; ``terms`` beside the paper's
        cross-entropy belong to the recipe and enter both. The auxiliary loss is None where
        SA is off or k is 0: it is then not computed at all.
        """
        query_features, support_features = self.episode_features(query, support)
        return self.losses_of_features(query_features, support_features, query_mask, support_mask, k, terms)

    def losses_of_features(
        self,
        query_features,
        support_features,
        query_mask,
        support_mask,
        k: float = 0.4,
        terms: LossTerms = CROSS_ENTROPY,
    ):
        """:meth:`losses` of what :meth:`episode_features` gives."""
        shots, prototype = self.encode_supports(support_features, support_mask)
        size = _size(query_mask)
        main = segmentation_loss(self.decode(query_features, prototype, size), query_mask, terms)
        if self.sa is None or k == 0:
            return main, None
        return main, self._auxiliary(shots, support_mask, size, terms)

    def _auxiliary(self, shots, masks, size, terms: LossTerms):
        released = self.protocol.aux_loss == "last"
        indices = [len(shots) - 1] if released else range(len(shots))
        total: Any = None
        for i in indices:
            target = masks[:, i]
            if self.protocol.aux_padding == "background":
                target = (target == 1).int32()
            loss = segmentation_loss(self.sa(*shots[i], size), target, terms)
            total = loss if total is None else total + loss
        return total / len(shots)

    def episode_features(self, query, support):
        """query (B, 3, H, W), support (B, K, 3, H, W) → features (B, C_b, h, w) and (B, K, C_b, h, w), no gradient."""
        batch, shot = support.shape[:2]
        _check_size(query)
        images = support.reshape(batch * shot, *support.shape[2:])
        if self.is_train and self.protocol.backbone_mode == "train":
            # batch statistics of the query and of each shot apart, as in the released code
            features = jt.stack([self.features(support[:, i]) for i in range(shot)], dim=1)
            return self.features(query), features
        both = self.features(jt.concat([query, images], dim=0))
        supports = both[batch:]
        return both[:batch], supports.reshape(batch, shot, *supports.shape[1:])

    def train(self) -> None:
        """Training mode for the head; the frozen backbone follows the protocol."""
        super().train()
        if self.protocol.backbone_mode == "eval":
            self.backbone.eval()

    def parameter_groups(self, lr: float, head_multiplier: float = 10.0) -> list[dict]:
        """Groups for the optimiser: comparison at ``lr``, the fresh decoder layers at ``head_multiplier · lr``.

        Order and membership are the released code's: down_query, down_supp, CPP, cls, conv_2T1 | conv_3x3, SSA, conv_3T1.
        """
        slow = [self.down_query, self.down_supp, self.cpp, self.compare1, self.compare2]
        fast = [self.refine1, self.refine2, self.ssa, self.classify]
        if self.sa is not None:
            slow += [self.sa.cls1, self.sa.cls2, self.sa.cls3]
            fast += [self.sa.mix1, self.sa.mix2]
        return [
            {"params": _trainable(slow), "lr": lr, "scale": 1.0},
            {"params": _trainable(fast), "lr": lr * head_multiplier, "scale": head_multiplier},
        ]


def _trainable(modules) -> list:
    found = [p for module in modules if module is not None for p in module.parameters()]
    return [p for p in found if not p.is_stop_grad()]


def _size(images) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


def _check_size(images) -> None:
    height, width = _size(images)
    if height % 8 or width % 8:
        raise ValueError(f"image sides must be multiples of 8, got {height}×{width}")
