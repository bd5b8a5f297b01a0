"""The network: one file a box of the paper's figure."""

from cpanet.models.backbones import VGG16, ResNet
from cpanet.models.cpanet import CPANet
from cpanet.models.cpp import CrossPositionProxy, MaskedAverage
from cpanet.models.parts import Auxiliary, Backbone, Decoder, Prototype
from cpanet.models.prototype_baseline import PrototypeBaseline
from cpanet.models.published import (
    auxiliary_name,
    backbone_of,
    check_parts,
    network_of,
    published_backbone,
    published_network,
)
from cpanet.models.sa import SupportAuxiliary
from cpanet.models.ssa import ConvDecoder, SpaceSqueezeAttention
from cpanet.protocol import Protocol

__all__ = [
    "VGG16",
    "Auxiliary",
    "Backbone",
    "CPANet",
    "ConvDecoder",
    "CrossPositionProxy",
    "Decoder",
    "MaskedAverage",
    "Protocol",
    "Prototype",
    "PrototypeBaseline",
    "ResNet",
    "SpaceSqueezeAttention",
    "SupportAuxiliary",
    "auxiliary_name",
    "backbone_of",
    "check_parts",
    "network_of",
    "published_backbone",
    "published_network",
]
