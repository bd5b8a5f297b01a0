"""Dilated ResNets (He et al. 2016) up to layer3, with the 7×7 stem or the deep stem of three 3×3 convolutions."""

from __future__ import annotations

from cpanet.models.layers import BatchNorm
from cpanet.models.parts import Backbone
from cpanet.models.upsample import upsample
from cpanet.ops import Conv
from cpanet.runtime import jt

nn = jt.nn

BLOCKS = {50: (3, 4, 6), 101: (3, 4, 23), 152: (3, 8, 36)}
# torchvision's stem → position in layer0
PLAIN_STEM = {"conv1": 0, "bn1": 1}
DEEP_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


class Bottleneck(jt.nn.Module):
    """1×1 → 3×3 → 1×1 with a residual, names as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, project: bool) -> None:
        outputs = width * self.expansion
        self.conv1 = Conv(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, outputs, 1, bias=False)
        self.bn3 = BatchNorm(outputs)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                Conv(inputs, outputs, 1, stride=stride, bias=False), BatchNorm(outputs)
            )

    def execute(self, x):
        """(N, C, H, W) → (N, 4·width, H/stride, W/stride)."""
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Backbone):
    """layer0…layer3; layer3 keeps layer2's resolution with dilation 2, layer4 is not used by CPANet and not built."""

    channels = 1024 + 512
    channels_f3 = 1024

    def __init__(self, depth: int = 50, deep_stem: bool = False) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"depth = {depth}: must be one of {', '.join(map(str, BLOCKS))}")
        self._stem = DEEP_STEM if deep_stem else PLAIN_STEM
        if deep_stem:
            stem = [*_conv_bn_relu(3, 64, 3, 2), *_conv_bn_relu(64, 64, 3, 1), *_conv_bn_relu(64, 128, 3, 1)]
        else:
            stem = _conv_bn_relu(3, 64, 7, 2)
        self.layer0 = nn.Sequential(*stem, nn.Pool(3, 2, padding=1, op="maximum"))
        n1, n2, n3 = BLOCKS[depth]
        self.layer1 = _layer(128 if deep_stem else 64, 64, n1, stride=1, dilation=1)
        self.layer2 = _layer(256, 128, n2, stride=2, dilation=1)
        self.layer3 = _layer(512, 256, n3, stride=1, dilation=2)

    def execute(self, images):
        """images (N, 3, H, W) normalised RGB → [layer3 ‖ layer2] (N, 1536, ⌈H/8⌉, ⌈W/8⌉)."""
        f2 = self.layer2(self.layer1(self.layer0(images)))
        f3 = self.layer3(f2)
        return jt.concat([f3, upsample(f2, tuple(f3.shape[2:]))], dim=1)

    def own_name(self, name: str) -> str | None:
        """torchvision's name → the name here; None for the classifier, ``layer4`` and counters of batches."""
        if name.endswith("num_batches_tracked") or name.startswith(("fc.", "layer4.")):
            return None
        first, _, rest = name.partition(".")
        return f"layer0.{self._stem[first]}.{rest}" if first in self._stem else name


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int) -> list:
    conv = Conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, BatchNorm(outputs), nn.ReLU()]


def _layer(inputs: int, width: int, blocks: int, stride: int, dilation: int):
    first = Bottleneck(inputs, width, stride, dilation, project=True)
    rest = [Bottleneck(width * 4, width, 1, dilation, project=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
