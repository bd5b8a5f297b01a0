"""SA, the support auxiliary branch: the support segments itself with its own prototype, in training only."""

from __future__ import annotations

from cpanet.models.dropout import ChannelDropout, DropoutSource, relu_dropout
from cpanet.models.resample import conv_of_enlarged
from cpanet.ops import Conv, conv2d, conv3x3_few, conv3x3_relu
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.2


class SupportAuxiliary(jt.nn.Module):
    """``conv_3T1`` and ``cls`` of the released code."""

    def __init__(self, width: int, dropout: DropoutSource, rate: float = DROPOUT) -> None:
        self.width = width
        self.mix1 = Conv(3 * width, width, 1, bias=False)
        self.mix2 = Conv(width, width, 3, padding=1, bias=False)
        self.cls1 = Conv(width, width, 3, padding=1, bias=False)
        self.cls2 = Conv(width, width, 3, padding=1, bias=False)
        self.cls3 = Conv(width, 2, 3, padding=1, bias=False)
        self.drop = ChannelDropout(rate, dropout)

    def execute(self, feature, prototype, size: tuple[int, int]):
        """feature (N, C, h, w), prototype (N, C), size (H, W) → logits (N, 2, H, W)."""
        drop, width = self.drop, self.width
        kernel = self.mix1.weight
        # the prototype is the same at every position and enters twice: its part is one vector an image
        constant = jt.matmul(
            prototype, (kernel[:, width : 2 * width] + kernel[:, 2 * width :]).reshape(width, width).t()
        )
        x = conv2d(feature, kernel[:, :width]) + constant.reshape(*constant.shape, 1, 1)
        first, second, third, fourth = (drop.factors(x.shape[0], width) for _ in range(4))
        x = conv3x3_relu(relu_dropout(x, first), self.mix2.weight, first, second)
        x = relu_dropout(conv_of_enlarged(x, self.cls1.weight, size, padding=1), third)
        return conv3x3_few(conv3x3_relu(x, self.cls2.weight, third, fourth), self.cls3.weight)
