"""A backbone of one's own: a frozen pyramid of convolutions with random weights, three lines of network."""

from __future__ import annotations

from cpanet.models import Backbone
from cpanet.runtime import jt


class Strided(Backbone):
    """``execute(images (N, 3, H, W)) → features (N, 2·width, H/8, W/8)``: f3 and f2 of ``width`` channels each."""

    def __init__(self, width: int = 32) -> None:
        self.channels, self.channels_f3 = 2 * width, width
        self.stem = jt.nn.Conv(3, width, 8, stride=8, bias=False)
        self.deeper = jt.nn.Conv(width, width, 3, padding=1, bias=False)

    def execute(self, images):
        shallow = jt.nn.relu(self.stem(images))
        return jt.concat([jt.nn.relu(self.deeper(shallow)), shallow], dim=1)
