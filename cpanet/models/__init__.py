"""The network: one file a box of the paper's figure."""

from cpanet.models.backbones import BACKBONES
from cpanet.models.cpanet import CPANet
from cpanet.models.floor import PrototypeFloor
from cpanet.models.protocol import CORRECTED, RELEASED, Protocol

__all__ = ["BACKBONES", "CORRECTED", "RELEASED", "CPANet", "Protocol", "PrototypeFloor"]
