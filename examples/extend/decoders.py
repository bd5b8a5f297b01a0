"""A decoder of one's own: two 3×3 convolutions on the feature grid, the result enlarged."""

from __future__ import annotations

from cpanet.models import Decoder
from cpanet.models.upsample import upsample
from cpanet.ops import Conv
from cpanet.runtime import jt


class TwoConvolutions(Decoder):
    """``execute(x (B, C, h, w), size (H, W)) → logits (B, 2, H, W)``. ``squeeze``: how many times fewer channels between."""

    name = "two_convolutions"  # its weights are called two_convolutions.… in files

    def __init__(self, width: int, squeeze: int = 2) -> None:
        self.narrow = Conv(width, width // squeeze, 3, padding=1, bias=False)
        self.classify = Conv(width // squeeze, 2, 3, padding=1)

    def execute(self, x, size: tuple[int, int]):
        return upsample(self.classify(jt.nn.relu(self.narrow(x))), size)
