"""Frozen ImageNet backbones, one file a family."""

from cpanet.models.backbones.resnet import ResNet
from cpanet.models.backbones.vgg import VGG16

__all__ = ["VGG16", "ResNet"]
