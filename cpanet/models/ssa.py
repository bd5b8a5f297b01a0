"""The decoder: SSA, the space squeeze attention (``DP`` in the released code), or one convolution in its place."""

from __future__ import annotations

import math

from cpanet.models import init
from cpanet.models.dropout import ChannelDropout, relu_dropout
from cpanet.models.parts import Decoder
from cpanet.models.upsample import conv_of_upsampled, upsample
from cpanet.ops import Conv, conv2d, conv3x3_relu, project, project_with_maximum
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.1


class ChannelAttention(jt.nn.Module):
    """Shared bottleneck on the global maximum and the global mean, summed, sigmoid (CBAM, Woo et al. 2018)."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        self.squeeze = nn.Linear(width, max(width // reduction, 1), bias=False)
        self.expand = nn.Linear(max(width // reduction, 1), width, bias=False)

    def execute(self, x):
        """x (B, C, H, W) → weights (B, C) in (0, 1)."""
        batch, channels = x.shape[:2]
        flat = x.reshape(batch, channels, -1)
        pooled = jt.concat([flat.max(dim=2), flat.mean(dim=2)], dim=0)
        scores = self.expand(nn.relu(self.squeeze(pooled)))
        return jt.sigmoid(scores[:batch] + scores[batch:])


class SpatialAttention(jt.nn.Module):
    """7×7 convolution on the channel-wise maximum and mean, sigmoid (CBAM, Woo et al. 2018)."""

    def __init__(self) -> None:
        self.conv = Conv(2, 1, 7, padding=3, bias=False)

    def execute(self, maximum, mean):
        """Maximum and mean over channels, (B, 1, H, W) each → weights (B, 1, H, W) in (0, 1)."""
        return jt.sigmoid(self.conv(jt.concat([maximum, mean], dim=1)))


class SpaceSqueezeAttention(Decoder):
    """Two strided squeezes of the enlarged map, fused with it, a residual and an attention branch, two logits."""

    name = "ssa"
    logit_layer = "classify"

    def __init__(self, width: int = 256, dropout: float = DROPOUT) -> None:
        self.width = width
        self.down1 = Conv(width, width, 2, stride=2, bias=False)
        self.down2 = Conv(width, width, 2, stride=2, bias=False)
        self.fuse = Conv(3 * width, width, 1, bias=False)
        self.mix = Conv(width, width, 3, padding=1, bias=False)
        self.residual = Conv(width, width, 3, padding=1, bias=False)
        self.channel = ChannelAttention(width)
        self.spatial = SpatialAttention()
        self.classify = Conv(width, 2, 1)
        self.drop = ChannelDropout(dropout)

    def execute(self, x, size: tuple[int, int]):
        """x (B, C, h, w) on the feature grid, size (H, W) multiples of 4 → logits (B, 2, H, W)."""
        x = upsample(x, size)
        x1 = self.drop(nn.relu(self.down1(x)))
        x2 = self.drop(nn.relu(self.down2(x1)))
        t = self.drop(nn.relu(self.fuse(jt.concat([x, upsample(x1, size), upsample(x2, size)], dim=1))))
        t = self.drop(nn.relu(self.mix(t)))
        residual = self.drop(nn.relu(self.residual(t)))
        return self.classify(residual + self.attention(t))

    def attention(self, t):
        """CBAM: t (B, C, H, W), weighted by channel, then by position."""
        t = t * self.channel(t).reshape(t.shape[0], t.shape[1], 1, 1)
        return t * self.spatial(t.max(dim=1, keepdims=True), t.mean(dim=1, keepdims=True))

    def fused(self, x, size: tuple[int, int]):
        """:meth:`execute` with the enlargement commuted past what is linear.

        The first squeeze reads ``x`` directly, and the 1×1 fusion of ``[X, up(x1), up(x2)]`` is three small 1×1
        convolutions whose results are enlarged and added, so that the threefold concatenation is never built.
        """
        drop = self.drop
        x1 = drop(nn.relu(conv_of_upsampled(x, self.down1.weight, size, stride=2)))
        x2 = drop(nn.relu(self.down2(x1)))
        kernels = self.fuse.weight
        fused = [
            conv2d(part, kernels[:, i * self.width : (i + 1) * self.width])
            for i, part in enumerate((x, x1, x2))
        ]
        first, second, third = (drop.factors(x.shape[0], self.width) for _ in range(3))
        t = relu_dropout(sum(upsample(part, size) for part in fused), first)
        t = conv3x3_relu(t, self.mix.weight, first, second)
        residual = conv3x3_relu(t, self.residual.weight, second, third)
        return self._logits(t, residual)

    def _logits(self, t, residual):
        """``classify(residual + CBAM(t))`` (B, 2, H, W), without building CBAM's maps.

        Channel weights a and classifier W make the projection W·(a ⊙ t), which spatial weights only scale: two numbers a
        pixel. Mean and maximum over channels, which the spatial weights need, come from the same pass over t.
        """
        weights = self.channel(t)
        classifier = self.classify.weight.reshape(1, 2, self.width)
        rows = jt.concat(
            [classifier * weights.unsqueeze(1), weights.unsqueeze(1) / self.width], dim=1
        )  # (B, 3, C)
        attended = project_with_maximum(t, rows, weights)
        spatial = self.spatial(attended[:, 3:], attended[:, 2:3])
        plain = project(residual, classifier.expand(t.shape[0], 2, self.width))
        return plain + spatial * attended[:, :2] + self.classify.bias.reshape(1, 2, 1, 1)

    def initial(self, name, shape, scheme, rng):
        """As released, convolutions from N(0, √(2/(k²·C_out))); as a prototype comparison, the map is handed through."""
        layer, _, kind = name.rpartition(".")
        if scheme == "released" and len(shape) == 4:
            return rng.standard_normal(shape) * math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
        if scheme != "prototype":
            return None
        if layer == "classify" and kind == "bias":
            return init.logit_biases()
        if layer == "classify":
            return init.NOISE * init.kaiming_normal(shape, rng) + init.difference(shape) / init.PASSED
        if layer in ("fuse", "mix", "residual"):
            return init.NOISE * init.kaiming_normal(shape, rng) + init.centre_tap(shape)
        if layer.startswith(("channel.", "spatial.")):
            return init.NOISE * init.kaiming_normal(shape, rng)
        return None


class ConvDecoder(Decoder):
    """One 1×1 convolution, what stands in for SSA in the ablations."""

    name = "classify"

    def __init__(self, width: int = 256) -> None:
        layer = Conv(width, 2, 1)
        self.weight, self.bias = layer.weight, layer.bias

    def execute(self, x, size: tuple[int, int]):
        """x (B, C, h, w), size (H, W) → logits (B, 2, H, W)."""
        return conv2d(upsample(x, size), self.weight, self.bias)

    def fused(self, x, size: tuple[int, int]):
        """Convolved on the small grid, then enlarged: the two commute."""
        return upsample(conv2d(x, self.weight, self.bias), size)

    def initial(self, name, shape, scheme, rng):
        """As a prototype comparison it takes the difference of the two halves of its channels."""
        if scheme != "prototype":
            return None
        if name == "bias":
            return init.logit_biases()
        return init.NOISE * init.kaiming_normal(shape, rng) + init.difference(shape)
