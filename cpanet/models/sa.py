"""SA, the support auxiliary branch: the support segments itself with its own prototype, in training only."""

from __future__ import annotations

from cpanet.models.dropout import ChannelDropout, relu_dropout
from cpanet.models.parts import Auxiliary
from cpanet.models.upsample import conv_of_upsampled, upsample
from cpanet.ops import Conv, conv2d, conv3x3_few, conv3x3_relu
from cpanet.runtime import jt

nn = jt.nn
DROPOUT = 0.2


class SupportAuxiliary(Auxiliary):
    """``conv_3T1`` and ``cls`` of the released code."""

    name = "sa"
    fast = ("mix1", "mix2")

    def __init__(self, width: int = 256, dropout: float = DROPOUT) -> None:
        self.width = width
        self.mix1 = Conv(3 * width, width, 1, bias=False)
        self.mix2 = Conv(width, width, 3, padding=1, bias=False)
        self.cls1 = Conv(width, width, 3, padding=1, bias=False)
        self.cls2 = Conv(width, width, 3, padding=1, bias=False)
        self.cls3 = Conv(width, 2, 3, padding=1, bias=False)
        self.drop = ChannelDropout(dropout)

    def execute(self, feature, prototype, size: tuple[int, int]):
        """feature (N, C, h, w), prototype (N, C), size (H, W) → logits (N, 2, H, W). The prototype enters twice."""
        drop = self.drop
        tiled = prototype.reshape(*prototype.shape, 1, 1).expand(*feature.shape)
        x = drop(nn.relu(self.mix1(jt.concat([feature, tiled, tiled], dim=1))))
        x = upsample(drop(nn.relu(self.mix2(x))), size)
        x = drop(nn.relu(self.cls1(x)))
        x = drop(nn.relu(self.cls2(x)))
        return self.cls3(x)

    def fused(self, feature, prototype, size: tuple[int, int]):
        """:meth:`execute`: a constant map enters as one vector, and the enlarged map is convolved before it is enlarged."""
        drop, width = self.drop, self.width
        kernel = self.mix1.weight
        # the prototype is the same at every position and enters twice: its part is one vector an image
        constant = jt.matmul(
            prototype, (kernel[:, width : 2 * width] + kernel[:, 2 * width :]).reshape(width, width).t()
        )
        x = conv2d(feature, kernel[:, :width]) + constant.reshape(*constant.shape, 1, 1)
        first, second, third, fourth = (drop.factors(x.shape[0], width) for _ in range(4))
        x = conv3x3_relu(relu_dropout(x, first), self.mix2.weight, first, second)
        x = relu_dropout(conv_of_upsampled(x, self.cls1.weight, size, padding=1), third)
        return conv3x3_few(conv3x3_relu(x, self.cls2.weight, third, fourth), self.cls3.weight)
