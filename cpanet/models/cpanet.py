"""CPANet (Feng et al., IEEE TIM 2023, doi 10.1109/TIM.2023.3246519): backbone, prototype, comparison, decoder.

Notation of all shapes: B episodes, K shots, image H×W, feature grid h×w, C = ``width`` channels (256 in the paper).
"""

from __future__ import annotations

from typing import Any

from cpanet.losses import CROSS_ENTROPY, Loss
from cpanet.models import init
from cpanet.models.dropout import ChannelDropout, DropoutSource, scale_channels
from cpanet.models.feature_norm import normalise_features
from cpanet.models.masks import shrink_mask
from cpanet.models.parts import Auxiliary, Backbone, Decoder, Part, Prototype
from cpanet.models.prior import ResidualPrior
from cpanet.models.prototype_baseline import frozen_features, is_unpooled
from cpanet.ops import Conv, conv2d, conv3x3_relu
from cpanet.protocol import Protocol
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.2
FAST = ("refine1", "refine2")  # of the layers outside the parts, those that learn faster


class CPANet(jt.nn.Module):
    """The whole network.

    Parameters
    ----------
    backbone: features of images; frozen here.
    prototype: makes a support feature and its mask one vector, such as CPP.
    decoder: makes the compared features logits at full resolution, such as SSA.
    auxiliary: the branch that segments the support itself, in training only, such as SA; None: no auxiliary loss.
    width: channels C of the head, those of the parts too.
    protocol: corrected or released behaviour; by default the paper's with point-sampled support masks, as in the
        released code's outputs.
    dropout: False sets every dropout rate to 0.
    head_init: how the head's weights start, see :func:`cpanet.models.init.initialise`.
    feature_norm: how features are normalised before the head, see :func:`cpanet.models.feature_norm.normalise_features`.
    prior: stage of the residual prior (:class:`cpanet.models.prior.ResidualPrior`); None: none.
    seed: of the initial weights, the backbone's too, and of the dropout masks.
    fused: backbone, parts and comparison compute their formula's faster equivalent, where they have one.

    The parts come with any weights; they are drawn anew here. Their weights stand under ``part.name`` in files.
    """

    def __init__(
        self,
        backbone: Backbone,
        prototype: Prototype,
        decoder: Decoder,
        auxiliary: Auxiliary | None = None,
        *,
        width: int = 256,
        protocol: Protocol = Protocol(),  # noqa: B008 (frozen)
        dropout: bool = True,
        seed: int = 0,
        head_init: str = "released",
        feature_norm: str = "plain",
        prior: str | None = None,
        fused: bool = True,
    ) -> None:
        self.width = width
        self.fused = fused
        self.protocol = protocol
        self.seed = seed
        self.feature_norm = feature_norm
        self._names: dict[str, str] = {}
        self.backbone: Any = backbone
        self.down_query = Conv(backbone.channels, width, 1, bias=False)
        self.down_supp = Conv(backbone.channels, width, 1, bias=False)
        self._add("prototype", prototype)
        self.compare1 = Conv(2 * width, width, 1, bias=False)
        self.compare2 = Conv(width, width, 3, padding=1, bias=False)
        self.refine1 = Conv(width, width, 3, padding=1, bias=False)
        self.refine2 = Conv(width, width, 3, padding=1, bias=False)
        self.drop = ChannelDropout(DROPOUT)
        self._add("decoder", decoder)
        if auxiliary is not None:
            self._add("auxiliary", auxiliary)
        # with a prior, the features handed round may be those before VGG's last pooling
        self.unpooled = is_unpooled(prior)
        self.prior: Any = (
            None if prior is None else ResidualPrior(prior, backbone.channels, backbone.channels_f3)
        )
        self.dropout_source = DropoutSource(seed)
        for module in self.modules():
            if isinstance(module, ChannelDropout):
                module.source = self.dropout_source
                module.p = module.p if dropout else 0.0
        init.initialise(self, seed, head_init)
        for parameter in self.backbone.parameters():
            parameter.stop_grad()

    # ------------------------------------------------------------------ the network, in the order of the paper's figure

    def execute(self, query, support, support_mask):
        """query (B, 3, H, W), support (B, K, 3, H, W), support_mask (B, K, H, W) → logits (B, 2, H, W).

        Images are normalised RGB; in the mask 1 is defect and everything else is not; H and W are multiples of 8.
        """
        query_features, support_features = self.episode_features(query, support)
        _, prototype = self.encode_supports(support_features, support_mask)
        return self.decode(query_features, prototype, _size(query))

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

    def features(self, images):
        """Frozen backbone: normalised RGB images (N, 3, H, W) → (N, C_backbone, h, w), no gradient."""
        return frozen_features(self.backbone, images, self.unpooled, self.fused)

    def head_features(self, features):
        """Features as the head takes them, from those of :meth:`features`: pooled, then normalised."""
        if self.unpooled:
            features = self.backbone.pooled(features)
        return normalise_features(features, self.feature_norm)

    def encode_support(self, features, mask):
        """features (N, C_b, h, w), mask (N, H, W) with 1 = defect → support feature (N, C, h, w), prototype (N, C)."""
        feature = self.drop(nn.relu(self.down_supp(self.head_features(features))))
        grid = (int(feature.shape[2]), int(feature.shape[3]))
        small = shrink_mask((mask == 1).float32().unsqueeze(1), grid, self.protocol.support_mask)
        return feature, self._run(self.prototype, feature, small)

    def encode_supports(self, features, masks):
        """features (B, K, C_b, h, w), masks (B, K, H, W) → per shot a list of (feature, prototype), and their mean (B, C).

        With a prior, its prototypes stand behind the mean: (B, C + 2C').

        Shot by shot, because BatchNorm in CPP takes its statistics from one shot at a time, as the released code does.
        """
        shots = [self.encode_support(features[:, i], masks[:, i]) for i in range(features.shape[1])]
        total = shots[0][1]
        for _, prototype in shots[1:]:
            total = total + prototype
        divisor = len(shots) if self.protocol.prototype_average == "shots" else features.shape[0]
        prototype = total / divisor
        if self.prior is not None:
            frozen = self.prior.encode_supports(features, masks, self.protocol.support_mask)
            prototype = jt.concat([prototype, frozen], dim=1)
        return shots, prototype

    def decode(self, features, prototype, size: tuple[int, int]):
        """Query features (B, C_b, h, w), prototype (B, C), size (H, W) → logits (B, 2, H, W)."""
        logits = self._decode_head(features, prototype[:, : self.width], size)
        if self.prior is None:
            return logits
        added = self.prior.logit(features, prototype[:, self.width :], size)
        return logits + jt.concat([jt.zeros_like(added), added], dim=1)

    def _decode_head(self, features, prototype, size: tuple[int, int]):
        query = self.drop(nn.relu(self.down_query(self.head_features(features))))
        x = self._compared_fused(query, prototype) if self.fused else self.compared(query, prototype)
        return self._run(self.decoder, x, size)

    def compared(self, query, prototype):
        """Query feature (B, C, h, w), prototype (B, C) → what the decoder reads, (B, C, h, w)."""
        tiled = prototype.reshape(*prototype.shape, 1, 1).expand(*query.shape)
        x = self.drop(nn.relu(self.compare1(jt.concat([tiled, query], dim=1))))
        for conv in (self.compare2, self.refine1, self.refine2):
            x = self.drop(nn.relu(conv(x)))
        return x

    # ------------------------------------------------------------------ the same, computed faster

    def _run(self, part: Part, *arguments):
        return part.fused(*arguments) if self.fused else part(*arguments)

    def _compared_fused(self, query, prototype):
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
        return x

    # ------------------------------------------------------------------ training

    def losses(self, query, query_mask, support, support_mask, k: float = 0.4, loss: Loss = CROSS_ENTROPY):
        """Main and auxiliary loss of a batch; the total is ``main + k · auxiliary``.

        query_mask (B, H, W) and support_mask (B, K, H, W) hold 0, 1 and 255 = ignored; both are measured by ``loss``,
        which belongs to the recipe. The auxiliary loss is None where
        there is no such branch or k is 0: it is then not computed at all.
        """
        query_features, support_features = self.episode_features(query, support)
        return self.losses_of_features(query_features, support_features, query_mask, support_mask, k, loss)

    def losses_of_features(
        self,
        query_features,
        support_features,
        query_mask,
        support_mask,
        k: float = 0.4,
        loss: Loss = CROSS_ENTROPY,
    ):
        """:meth:`losses` of what :meth:`episode_features` gives."""
        shots, prototype = self.encode_supports(support_features, support_mask)
        size = _size(query_mask)
        main = loss(self.decode(query_features, prototype, size), query_mask)
        if self.auxiliary is None or k == 0:
            return main, None
        return main, self._auxiliary(shots, support_mask, size, loss)

    def _auxiliary(self, shots, masks, size, loss: Loss):
        released = self.protocol.aux_loss == "last"
        indices = [len(shots) - 1] if released else range(len(shots))
        total: Any = None
        for i in indices:
            target = masks[:, i]
            if self.protocol.aux_padding == "background":
                target = (target == 1).int32()
            of_shot = loss(self._run(self.auxiliary, *shots[i], size), target)
            total = of_shot if total is None else total + of_shot
        return total / len(shots)

    def train(self) -> None:
        """Training mode for the head; the frozen backbone follows the protocol."""
        super().train()
        if self.protocol.backbone_mode == "eval":
            self.backbone.eval()

    def parameter_groups(self, lr: float, head_multiplier: float = 10.0) -> list[dict]:
        """Groups for the optimiser: comparison at ``lr``, the fresh decoder layers at ``head_multiplier · lr``.

        Order and membership are the released code's: down_query, down_supp, CPP, cls, conv_2T1 | conv_3x3, SSA, conv_3T1.
        """
        slow: list[Any] = []
        fast: list[Any] = []
        parts = {self._names[kind]: getattr(self, kind) for kind in self._names}
        for name, parameter in self.named_parameters():
            if parameter.is_stop_grad():
                continue
            first, _, rest = name.partition(".")
            learns_fast = _is_fast(parts[first].fast, rest) if first in parts else _is_fast(FAST, name)
            (fast if learns_fast else slow).append(parameter)
        return [
            {"params": slow, "lr": lr, "scale": 1.0},
            {"params": fast, "lr": lr * head_multiplier, "scale": head_multiplier},
        ]

    # ------------------------------------------------------------------ the parts and their weights

    def _add(self, kind: str, part: Part) -> None:
        """Hold ``part`` under its own name, which the names of its weights start with."""
        name = part.weights_name()
        if hasattr(self, name):
            raise ValueError(
                f"the {kind} {type(part).__name__} is called {name!r}, as another part is: give the class another `name`"
            )
        setattr(self, name, part)
        self._names[kind] = name

    @property
    def prototype(self) -> Any:
        """The part that makes the prototype."""
        return getattr(self, self._names["prototype"])

    @property
    def decoder(self) -> Any:
        """The part that makes the logits."""
        return getattr(self, self._names["decoder"])

    @property
    def auxiliary(self) -> Any:
        """The auxiliary branch, or None."""
        return getattr(self, self._names["auxiliary"]) if "auxiliary" in self._names else None

    @property
    def logit_weights(self) -> str:
        """Prefix of the names of the weights that give the logits."""
        return ".".join(word for word in (self._names["decoder"], self.decoder.logit_layer) if word) + "."

    def initial(self, name, shape, scheme, rng):
        """As a prototype comparison, the layers between backbone and decoder compare (:mod:`cpanet.models.init`)."""
        layer, _, kind = name.rpartition(".")
        if scheme != "prototype" or kind != "weight":
            return None
        if layer in ("down_query", "down_supp"):
            return init.signed_projection(shape)
        if layer == "compare1":
            return (
                init.NOISE * init.kaiming_normal(shape, rng) + init.intersection(shape[0])[:, :, None, None]
            )
        if layer in ("compare2", "refine1", "refine2"):
            return init.NOISE * init.kaiming_normal(shape, rng) + init.centre_tap(shape)
        return None


def _is_fast(declared: bool | tuple[str, ...], name: str) -> bool:
    """Whether a part's parameter ``name`` learns fast by what the part declares."""
    return declared if isinstance(declared, bool) else name.partition(".")[0] in declared


def _size(images) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


def _check_size(images) -> None:
    height, width = _size(images)
    if height % 8 or width % 8:
        raise ValueError(f"image sides must be multiples of 8, got {height}×{width}")
