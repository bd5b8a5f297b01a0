"""Names of the same tensor here, in the authors' released code, and in torchvision."""

from __future__ import annotations

import re
from collections.abc import Iterable

# this project's module → the released code's, head only; the backbone's stages keep their names
RELEASED = {
    "down_query": "down_query.0",
    "down_supp": "down_supp.0",
    "cpp.g": "REF.g.0",
    "cpp.phi": "REF.phi.0",
    "cpp.theta": "REF.theta",
    "cpp.project": "REF.W.0",
    "cpp.norm": "REF.W.1",
    "compare1": "conv_2T1.0",
    "compare2": "conv_2T1.3",
    "refine1": "conv_3x3.0",
    "refine2": "conv_3x3.3",
    "ssa.down1": "DP.Done1.0",
    "ssa.down2": "DP.Done2.0",
    "ssa.fuse": "DP.conv_cat.0",
    "ssa.mix": "DP.conv_cat.3",
    "ssa.residual": "DP.res_conv.0",
    "ssa.channel.squeeze": "DP.Cbam.channel_attention.fc.0",
    "ssa.channel.expand": "DP.Cbam.channel_attention.fc.2",
    "ssa.spatial.conv": "DP.Cbam.spacial_attention.conv",
    "ssa.classify": "DP.cls.0",
    "sa.mix1": "conv_3T1.0",
    "sa.mix2": "conv_3T1.3",
    "sa.cls1": "cls.0",
    "sa.cls2": "cls.3",
    "sa.cls3": "cls.6",
}
_FROM_RELEASED = {released: ours for ours, released in RELEASED.items()}

# first layer of torchvision's ``features`` in each stage of VGG-16 (DESIGN: the splits end with the max-pools)
_VGG_STARTS = {"vgg16": (0, 5, 10, 17, 24), "vgg16_bn": (0, 7, 14, 24, 34)}
# torchvision's stem → position in this project's layer0
_PLAIN_STEM = {"conv1": 0, "bn1": 1}
_DEEP_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


def to_released(name: str) -> str:
    """This project's tensor name → the released one; names without a counterpart stay."""
    if name.startswith("backbone."):
        return name[len("backbone.") :]
    module, _, leaf = name.rpartition(".")
    return f"{RELEASED.get(module, module)}.{leaf}"


def from_released(name: str) -> str | None:
    """A released tensor name → this project's, or None for what CPANet never uses (``layer4``, batch counters)."""
    name = name[len("module.") :] if name.startswith("module.") else name
    if name.startswith("layer4.") or name.endswith("num_batches_tracked"):
        return None
    if re.match(r"layer[0-3]\.", name):
        return f"backbone.{name}"
    module, _, leaf = name.rpartition(".")
    return f"{_FROM_RELEASED.get(module, module)}.{leaf}"


def from_torchvision(name: str, backbone: str) -> str | None:
    """A torchvision tensor name → this project's backbone name, or None for what lies behind the features used."""
    name = name[len("module.") :] if name.startswith("module.") else name
    if name.endswith("num_batches_tracked"):
        return None
    if backbone.startswith("vgg"):
        return _from_vgg(name, _VGG_STARTS[backbone])
    stem = _DEEP_STEM if backbone.endswith("_deep") else _PLAIN_STEM
    first, _, rest = name.partition(".")
    if first in stem:
        return f"layer0.{stem[first]}.{rest}"
    return name if re.match(r"layer[0-3]\.", name) else (None if _is_unused(name) else name)


def _from_vgg(name: str, starts: tuple[int, ...]) -> str | None:
    match = re.match(r"features\.(\d+)\.(\w+)$", name)
    if match is None:
        return None if _is_unused(name) else name
    layer = int(match.group(1))
    if layer >= starts[-1]:
        return None
    stage = max(i for i, start in enumerate(starts) if layer >= start)
    return f"layer{stage}.{layer - starts[stage]}.{match.group(2)}"


def _is_unused(name: str) -> bool:
    return name.startswith(("classifier.", "fc.", "layer4."))


def looks_released(names: Iterable[str]) -> bool:
    """Whether the names are those of the released code rather than this project's."""
    return any(re.match(r"(module\.)?(layer[0-3]\.|REF\.|DP\.|conv_2T1\.)", name) for name in names)
