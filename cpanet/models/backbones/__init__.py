"""Frozen ImageNet backbones: one file a family, ``BACKBONES`` the names that exist."""

from __future__ import annotations

from typing import Any

BACKBONES = (
    "vgg16",
    "vgg16_bn",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50_deep",
    "resnet101_deep",
    "resnet152_deep",
)


def build_backbone(name: str) -> Any:
    """The backbone ``name`` with random weights; ``execute(images (N,3,H,W))`` gives features (N, channels, h, w)."""
    if name in ("vgg16", "vgg16_bn"):
        from cpanet.models.backbones.vgg import VGG16

        return VGG16(batch_norm=name == "vgg16_bn")
    if name in BACKBONES:
        from cpanet.models.backbones.resnet import ResNet

        depth, _, stem = name.removeprefix("resnet").partition("_")
        return ResNet(int(depth), deep_stem=stem == "deep")
    raise ValueError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
