"""Names of the same tensor here and in the authors' released code; a backbone knows those of its ImageNet weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Callable, TypeVar

T = TypeVar("T")

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


def looks_released(names: Iterable[str]) -> bool:
    """Whether the names are those of the released code rather than this project's."""
    return any(re.match(r"(module\.)?(layer[0-3]\.|REF\.|DP\.|conv_2T1\.)", name) for name in names)


def renamed(named: Mapping[str, T], rename: Callable[[str], str | None]) -> dict[str, T]:
    """``named`` by other names, without those that ``rename`` has None for."""
    found = ((rename(name), value) for name, value in named.items())
    return {name: value for name, value in found if name is not None}


def below(prefix: str, named: Mapping[str, T]) -> dict[str, T]:
    """Those of ``named`` whose names begin with ``prefix``, by the rest of their names."""
    return {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix)}
