"""VGG-16 (Simonyan & Zisserman 2015), with and without BatchNorm, up to its fourth pooling."""

from __future__ import annotations

from cpanet.models.numerics import BatchNorm
from cpanet.models.resample import enlarge
from cpanet.ops import Conv
from cpanet.runtime import jt

nn = jt.nn

# (input channels, output channels of each convolution) of the four stages
STAGES = ((3, (64, 64)), (64, (128, 128)), (128, (256, 256, 256)), (256, (512, 512, 512)))


class VGG16(jt.nn.Module):
    """Stages layer0…layer3 of torchvision's ``features``, each with its closing 2×2 max-pool."""

    channels = 512 + 256
    channels_f3 = 512

    def __init__(self, batch_norm: bool) -> None:
        self.layer0, self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*_stage(inputs, outputs, batch_norm)) for inputs, outputs in STAGES
        )

    def execute(self, images):
        """images (N, 3, H, W) normalised RGB → [layer3 ‖ layer2 resized to it] (N, 768, ⌈H/16⌉, ⌈W/16⌉)."""
        f2 = self.layer2(self.layer1(self.layer0(images)))
        f3 = self.layer3(f2)
        return jt.concat([f3, enlarge(f2, tuple(f3.shape[2:]))], dim=1)


def _stage(channels: int, widths: tuple[int, ...], batch_norm: bool) -> list:
    layers: list = []
    for width in widths:
        layers.append(Conv(channels, width, 3, padding=1))
        if batch_norm:
            layers.append(BatchNorm(width))
        layers.append(nn.ReLU())
        channels = width
    # rounding up, as the released outputs demand: 25 → 13 at 200×200, where torchvision would give 12
    layers.append(nn.Pool(2, 2, ceil_mode=True, op="maximum"))
    return layers
