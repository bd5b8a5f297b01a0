"""VGG-16 (Simonyan & Zisserman 2015), with and without BatchNorm, up to its fourth pooling."""

from __future__ import annotations

import re

from cpanet.models.layers import BatchNorm
from cpanet.models.parts import Backbone
from cpanet.models.upsample import upsample
from cpanet.ops import Conv, conv3x3_bias_relu
from cpanet.runtime import jt

nn = jt.nn

# (input channels, output channels of each convolution) of the four stages
STAGES = ((3, (64, 64)), (64, (128, 128)), (128, (256, 256, 256)), (256, (512, 512, 512)))
# first layer of torchvision's ``features`` in each stage; the last number: behind them
STARTS = {False: (0, 5, 10, 17, 24), True: (0, 7, 14, 24, 34)}


class VGG16(Backbone):
    """Stages layer0…layer3 of torchvision's ``features``, each with its closing 2×2 max-pool."""

    channels = 512 + 256
    channels_f3 = 512

    def __init__(self, batch_norm: bool = True) -> None:
        self._starts = STARTS[batch_norm]
        self.layer0, self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*_stage(inputs, outputs, batch_norm)) for inputs, outputs in STAGES
        )

    def execute(self, images):
        """images (N, 3, H, W) normalised RGB → [layer3 ‖ layer2 resized to it] (N, 768, ⌈H/16⌉, ⌈W/16⌉)."""
        return self.pooled(self.unpooled(images))

    def unpooled(self, images):
        """images (N, 3, H, W) normalised RGB → [layer3 before its pooling ‖ layer2] (N, 768, ⌈H/8⌉, ⌈W/8⌉)."""
        f3 = f2 = self.layer2(self.layer1(self.layer0(images)))
        for place in range(len(self.layer3) - 1):
            f3 = self.layer3[place](f3)
        return jt.concat([f3, f2], dim=1)

    def pooled(self, unpooled):
        """Pools the result of :meth:`unpooled` to that of :meth:`execute`."""
        f3 = self.layer3[len(self.layer3) - 1](unpooled[:, : self.channels_f3])
        return jt.concat([f3, upsample(unpooled[:, self.channels_f3 :], tuple(f3.shape[2:]))], dim=1)

    def fused(self, images):
        """:meth:`execute`, each convolution in one operator with its BatchNorm and ReLU."""
        return self.pooled(self.unpooled_fused(images))

    def unpooled_fused(self, images):
        """:meth:`unpooled`, likewise."""
        x = images
        for stage in (self.layer0, self.layer1, self.layer2):
            x = _run_fused(stage, len(stage), x)
        return jt.concat([_run_fused(self.layer3, len(self.layer3) - 1, x), x], dim=1)

    def own_name(self, name: str) -> str | None:
        """torchvision's name → the name here; None for the classifier, what lies behind layer3, and counters of batches."""
        if name.endswith("num_batches_tracked") or name.startswith("classifier."):
            return None
        match = re.match(r"features\.(\d+)\.(\w+)$", name)
        if match is None:
            return name
        layer = int(match.group(1))
        if layer >= self._starts[-1]:
            return None
        stage = max(i for i, start in enumerate(self._starts) if layer >= start)
        return f"layer{stage}.{layer - self._starts[stage]}.{match.group(2)}"


def _run_fused(stage, count: int, x):
    """The first ``count`` layers of a stage, each convolution in one operator with what follows it up to its ReLU."""
    step = 3 if isinstance(stage[1], BatchNorm) else 2
    place = 0
    while place < count:
        conv, following = stage[place], stage[place + 1] if place + 1 < count else None
        if not isinstance(conv, Conv):
            x, place = conv(x), place + 1
            continue
        if isinstance(following, BatchNorm) and following.is_train:
            x, place = conv(x), place + 1
            continue
        weight, bias = conv.weight, conv.bias
        if isinstance(following, BatchNorm):  # fixed statistics: one scale and one shift a channel
            scale = following.weight / jt.sqrt(following.running_var + following.eps)
            weight = weight * scale.reshape(-1, 1, 1, 1)
            bias = (bias - following.running_mean) * scale + following.bias
        x, place = conv3x3_bias_relu(x, weight, bias), place + step
    return x


def _stage(channels: int, widths: tuple[int, ...], batch_norm: bool) -> list:
    layers: list = []
    for width in widths:
        layers.append(Conv(channels, width, 3, padding=1))
        if batch_norm:
            layers.append(BatchNorm(width))
        layers.append(nn.ReLU())
        channels = width
    # rounding up, as the released outputs demand: 25 → 13 at 200×200, where torchvision would give 12
    layers.append(nn.Pool(2, 2, ceil_mode=True, op="maximum"))
    return layers
