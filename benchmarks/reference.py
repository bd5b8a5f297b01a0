"""The textbook CPANet in eager PyTorch: what the project is checked against and timed against.

Written from the paper's figure and the released network's parameter names, and computed layer by layer as
the released code does it: query and support pass through the backbone one after the other, shots in a loop,
feature maps are enlarged and concatenated at full resolution, every convolution is a plain convolution.
Nothing here is clever, on purpose. It keeps the corrected protocol: prototypes averaged over the shots, the
auxiliary loss averaged over the shots, the backbone's BatchNorm always in evaluation mode.

Shapes: B episodes, K shots, image H×W, feature grid h×w, C the head's width (256).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = 255
PARAMETER_GROUPS = (  # (module, learning-rate multiplier) in the released order
    ("down_query", 1.0),
    ("down_supp", 1.0),
    ("REF", 1.0),
    ("cls", 1.0),
    ("conv_2T1", 1.0),
    ("conv_3x3", 10.0),
    ("DP", 10.0),
    ("conv_3T1", 10.0),
)


def resize(x: Tensor, size: Iterable[int]) -> Tensor:
    """Bilinear, corners aligned: the network's one way of resizing."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


# ---------------------------------------------------------------------------------------------- backbones

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
RESNET_BLOCKS = {50: (3, 4, 6), 101: (3, 4, 23), 152: (3, 8, 36)}


def vgg16_stages(batch_norm: bool) -> list[nn.Sequential]:
    """The four stages of VGG-16 that the network reads, each closed by its max-pool.

    The pools round up, unlike torchvision's: 200×200 ends on 13×13, as the released code's outputs show.
    """
    stages, channels = [], 3
    for widths in VGG16_STAGES:
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    return stages


class Bottleneck(nn.Module):
    """1×1 → 3×3 → 1×1 residual block with four times ``width`` output channels."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + identity, inplace=True)


def resnet_stages(depth: int, deep_stem: bool) -> list[nn.Sequential]:
    """Stem and three stages of a ResNet; the third keeps its resolution by dilation 2 instead of stride 2."""

    def conv_bn_relu(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    if deep_stem:
        stem = [*conv_bn_relu(3, 64, 3, 2), *conv_bn_relu(64, 64, 3, 1), *conv_bn_relu(64, 128, 3, 1)]
    else:
        stem = conv_bn_relu(3, 64, 7, 2)
    stages = [nn.Sequential(*stem, nn.MaxPool2d(3, 2, padding=1))]
    channels = 128 if deep_stem else 64
    widths, strides, dilations = (64, 128, 256), (1, 2, 1), (1, 1, 2)
    for blocks, width, stride, dilation in zip(RESNET_BLOCKS[depth], widths, strides, dilations):
        layers = [Bottleneck(channels, width, stride, dilation, project=True)]
        channels = 4 * width
        layers += [Bottleneck(channels, width, 1, dilation, project=False) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(*layers))
    return stages


def backbone_stages(name: str) -> tuple[list[nn.Sequential], int]:
    """The stages layer0 … layer3 of a backbone, and the channels of [f3, f2] together."""
    if name in ("vgg16", "vgg16_bn"):
        return vgg16_stages(batch_norm=name == "vgg16_bn"), 512 + 256
    depth, _, stem = name.removeprefix("resnet").partition("_")
    return resnet_stages(int(depth), deep_stem=stem == "deep"), 1024 + 512


# --------------------------------------------------------------------------------------------------- head


def conv_relu_drop(channels: int, out: int, kernel: int, drop: float, stride: int = 1) -> list[nn.Module]:
    """Bias-free convolution (the same size where stride is 1), ReLU, channel dropout."""
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
    return [conv, nn.ReLU(inplace=True), nn.Dropout2d(drop)]


class CrossPositionProxy(nn.Module):
    """CPP: a non-local block over the masked support feature, then global max-pooling to a prototype."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        for parameter in self.W[1].parameters():  # the block starts as the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, 1, 1)."""
        values = self.g(x).flatten(2).transpose(1, 2)  # (B, M, C/2), M keys on the pooled grid
        queries = self.theta(x).flatten(2).transpose(1, 2)  # (B, N, C/2), N = h·w
        keys = self.phi(x).flatten(2)  # (B, C/2, M)
        attention = torch.softmax(queries @ keys, dim=-1)
        gathered = (attention @ values).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])
        return F.adaptive_max_pool2d(self.W(gathered) + x, 1)


class ChannelAttention(nn.Module):
    """Weights in (0, 1) for each channel, from its global maximum and mean through one shared MLP."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 1, 1)."""
        maximum = F.adaptive_max_pool2d(x, 1).flatten(1)
        mean = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return torch.sigmoid(self.fc(maximum) + self.fc(mean))[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weights in (0, 1) for each position, from the maximum and mean over channels."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1, H, W)."""
        statistics = torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(statistics))


class Cbam(nn.Module):
    """Channel attention, then spatial attention on what it leaves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels)
        self.spacial_attention = SpatialAttention()  # spelt as in the released weights

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_attention(x) * x
        return self.spacial_attention(x) * x


class SpaceSqueezeAttention(nn.Module):
    """SSA: context from twice-halved maps, refined by a convolution beside CBAM, to two logits a pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Done1 = nn.Sequential(*conv_relu_drop(channels, channels, 2, 0.1, stride=2))
        self.Done2 = nn.Sequential(*conv_relu_drop(channels, channels, 2, 0.1, stride=2))
        self.conv_cat = nn.Sequential(
            *conv_relu_drop(3 * channels, channels, 1, 0.1), *conv_relu_drop(channels, channels, 3, 0.1)
        )
        self.res_conv = nn.Sequential(*conv_relu_drop(channels, channels, 3, 0.1))
        self.cls = nn.Sequential(nn.Conv2d(channels, 2, 1))
        self.Cbam = Cbam(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, 2, H, W)."""
        half = self.Done1(x)
        quarter = self.Done2(half)
        size = x.shape[2:]
        merged = self.conv_cat(torch.cat([x, resize(half, size), resize(quarter, size)], dim=1))
        return self.cls(self.res_conv(merged) + self.Cbam(merged))


class ReferenceCPANet(nn.Module):
    """The whole network with every component on. Parameter names are the released ones.

    Args:
        backbone: an option of ``conf/backbone``; frozen, and always in evaluation mode.
        width: the head's channels C, a multiple of 16 (256 in the paper).
        aux_padding: "ignore" or "background", the target of padded support pixels in the auxiliary loss.
    """

    def __init__(self, backbone: str = "vgg16_bn", width: int = 256, aux_padding: str = "ignore") -> None:
        super().__init__()
        stages, channels = backbone_stages(backbone)
        self.layer0, self.layer1, self.layer2, self.layer3 = stages
        self.aux_padding = aux_padding
        c, drop = width, 0.2
        self.cls = nn.Sequential(
            *conv_relu_drop(c, c, 3, drop),
            *conv_relu_drop(c, c, 3, drop),
            nn.Conv2d(c, 2, 3, padding=1, bias=False),
        )
        self.down_query = nn.Sequential(*conv_relu_drop(channels, c, 1, drop))
        self.down_supp = nn.Sequential(*conv_relu_drop(channels, c, 1, drop))
        self.conv_2T1 = nn.Sequential(*conv_relu_drop(2 * c, c, 1, drop), *conv_relu_drop(c, c, 3, drop))
        self.conv_3x3 = nn.Sequential(*conv_relu_drop(c, c, 3, drop), *conv_relu_drop(c, c, 3, drop))
        self.conv_3T1 = nn.Sequential(*conv_relu_drop(3 * c, c, 1, drop), *conv_relu_drop(c, c, 3, drop))
        self.DP = SpaceSqueezeAttention(c)
        self.REF = CrossPositionProxy(c)
        for stage in stages:
            stage.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> ReferenceCPANet:
        super().train(mode)
        for stage in (self.layer0, self.layer1, self.layer2, self.layer3):
            stage.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) → [f3, f2] on f3's grid, (B, 768 or 1536, h, w), without gradients."""
        with torch.no_grad():
            f2 = self.layer2(self.layer1(self.layer0(images)))
            f3 = self.layer3(f2)
            return torch.cat([f3, resize(f2, f3.shape[2:])], dim=1)

    def prototypes(self, support: Tensor, label: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The feature (B, C, h, w), before masking, and the prototype (B, C, 1, 1) of every shot."""
        features, prototypes = [], []
        for shot in range(support.shape[1]):
            feature = self.down_supp(self.features(support[:, shot]))
            mask = resize((label[:, shot] == 1).to(feature.dtype)[:, None], feature.shape[2:])
            features.append(feature)
            prototypes.append(self.REF(feature * mask))
        return features, prototypes

    def segment(self, query: Tensor, prototypes: list[Tensor]) -> Tensor:
        """Logits (B, 2, H, W) of the query, from the mean of the shots' prototypes."""
        feature = self.down_query(self.features(query))
        prototype = sum(prototypes[1:], prototypes[0]) / len(prototypes)
        x = self.conv_2T1(torch.cat([prototype.expand_as(feature), feature], dim=1))
        return self.DP(resize(self.conv_3x3(x), query.shape[2:]))

    def auxiliary(self, feature: Tensor, prototype: Tensor, size: Iterable[int]) -> Tensor:
        """Support logits (B, 2, H, W) of one shot."""
        expanded = prototype.expand_as(feature)
        x = self.conv_3T1(torch.cat([feature, expanded, expanded], dim=1))
        return self.cls(resize(x, size))

    def forward(self, query: Tensor, support: Tensor, support_label: Tensor) -> Tensor:
        """query (B, 3, H, W), support (B, K, 3, H, W), support_label (B, K, H, W) → logits (B, 2, H, W)."""
        _, prototypes = self.prototypes(support, support_label)
        return self.segment(query, prototypes)

    def losses(
        self, query: Tensor, query_label: Tensor, support: Tensor, support_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the query, and that of the support averaged over shots; labels are 0, 1 or 255."""
        features, prototypes = self.prototypes(support, support_label)
        main = F.cross_entropy(self.segment(query, prototypes), query_label.long(), ignore_index=IGNORED)
        auxiliary = []
        for shot, (feature, prototype) in enumerate(zip(features, prototypes)):
            target = support_label[:, shot].long()
            if self.aux_padding == "background":
                target = (target == 1).long()
            logits = self.auxiliary(feature, prototype, query.shape[2:])
            auxiliary.append(F.cross_entropy(logits, target, ignore_index=IGNORED))
        return main, torch.stack(auxiliary).mean()

    def shapes(self) -> dict[str, list[int]]:
        """Name and shape of every weight and buffer."""
        return {name: list(value.shape) for name, value in self.state_dict().items()}

    def load_arrays(self, state: dict[str, np.ndarray]) -> None:
        """Fill every weight from arrays of the same names; raises where a name is missing or unknown."""
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("num_batches_tracked")}
        self.load_state_dict({**counters, **{k: torch.from_numpy(v) for k, v in state.items()}})


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch every dropout off for good, in training mode too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


def optimizer(model: ReferenceCPANet, lr: float) -> torch.optim.SGD:
    """SGD as released: momentum 0.9, weight decay 1e-4, ten times the rate for the last three modules."""
    groups = [
        {"params": list(getattr(model, name).parameters()), "lr": lr * multiplier}
        for name, multiplier in PARAMETER_GROUPS
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=1e-4)
