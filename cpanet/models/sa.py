"""SA, the support auxiliary branch: the support segments itself with its own prototype, in training only."""

from __future__ import annotations

from cpanet.models.dropout import ChannelDropout, DropoutSource
from cpanet.models.resample import conv_of_enlarged
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.2


class SupportAuxiliary(jt.nn.Module):
    """``conv_3T1`` and ``cls`` of the released code."""

    def __init__(self, width: int, dropout: DropoutSource, rate: float = DROPOUT) -> None:
        self.width = width
        self.mix1 = nn.Conv(3 * width, width, 1, bias=False)
        self.mix2 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.cls1 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.cls2 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.cls3 = nn.Conv(width, 2, 3, padding=1, bias=False)
        self.drop = ChannelDropout(rate, dropout)

    def execute(self, feature, prototype, size: tuple[int, int]):
        """feature (N, C, h, w), prototype (N, C), size (H, W) → logits (N, 2, H, W)."""
        drop, width = self.drop, self.width
        kernel = self.mix1.weight
        # the prototype is the same at every position and enters twice: its part is one vector an image
        constant = jt.matmul(
            prototype, (kernel[:, width : 2 * width] + kernel[:, 2 * width :]).reshape(width, width).t()
        )
        x = nn.conv2d(feature, kernel[:, :width]) + constant.reshape(*constant.shape, 1, 1)
        x = drop(nn.relu(self.mix2(drop(nn.relu(x)))))
        x = drop(nn.relu(conv_of_enlarged(x, self.cls1.weight, size, padding=1)))
        x = drop(nn.relu(self.cls2(x)))
        return self.cls3(x)
