"""Networks from a configuration's sections, and the published ones by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpanet import options, targets
from cpanet.models.cpanet import CPANet
from cpanet.models.parts import Auxiliary, Backbone, Decoder, Prototype
from cpanet.protocol import Protocol

# of a backbone's section: how it is called and trained, not arguments unless its class takes them
ABOUT = ("name", "batch_norm", *options.BESIDE_NETWORK)


def backbone_of(section: Mapping[str, Any]) -> Backbone:
    """The backbone that a ``backbone`` section of a configuration describes, with random weights."""
    made: Backbone = targets.make(section, Backbone, "backbone", ABOUT)
    if isinstance(section.get("name"), str):
        made.name = section["name"]
    return made


def network_of(
    config: Mapping[str, Any], backbone: Backbone, inference: bool = False, **further: Any
) -> CPANet:
    """CPANet as ``config`` describes it, plain data of this version's form, around ``backbone``.

    ``inference``: without the auxiliary branch, which inference never asks, and without dropout. ``further`` options
    are those of :class:`CPANet`.
    """
    width, recipe = config["model"]["width"], config.get("recipe", {})
    ablation = {**config["ablation"], "auxiliary": None} if inference else config["ablation"]
    return CPANet(
        backbone,
        *_parts(ablation, width),
        width=width,
        protocol=Protocol(**config.get("protocol", {})),
        dropout=not inference and recipe["dropout"],
        feature_norm=recipe.get("features", "plain"),
        prior=recipe.get("prior"),
        fused=config["model"].get("fused", True),
        **further,
    )


def _parts(ablation: Mapping[str, Any], width: int) -> tuple[Prototype, Decoder, Auxiliary | None]:
    """Parts that the section ``ablation`` of a configuration puts between the backbone and the logits."""

    def part(kind: str, base: type) -> Any:
        return targets.make(ablation[kind], base, f"ablation.{kind}", offered={"width": width})

    branch = None if ablation["auxiliary"] is None else part("auxiliary", Auxiliary)
    return part("prototype", Prototype), part("decoder", Decoder), branch


def check_parts(config: Mapping[str, Any], head: bool) -> None:
    """Make the backbone that ``config`` describes, and with ``head`` the parts of the head. Raises UserError as they do."""
    backbone_of(config["backbone"])
    if head:
        _parts(config["ablation"], config["model"]["width"])


def auxiliary_name(ablation: Mapping[str, Any]) -> str | None:
    """Prefix of the names of the auxiliary branch's weights; None where there is no branch."""
    if ablation["auxiliary"] is None:
        return None
    return targets.class_of(ablation["auxiliary"], Auxiliary, "ablation.auxiliary").weights_name()


def published_backbone(name: str) -> Backbone:
    """The backbone of the option ``conf/backbone/NAME.yaml``, with random weights."""
    section = options.read("backbone", name)
    if not section:
        raise ValueError(f"unknown backbone {name!r}; there are {', '.join(options.names('backbone'))}")
    return backbone_of(section)


def published_network(
    backbone: str | Backbone = "vgg16_bn",
    cpp: bool = True,
    sa: bool = True,
    ssa: bool = True,
    width: int = 256,
    **further: Any,
) -> CPANet:
    """CPANet with any of CPP, SA and SSA replaced as in the ablations; ``further`` options are those of :class:`CPANet`."""
    ablation = options.current({"ablation": {"cpp": cpp, "sa": sa, "ssa": ssa}})["ablation"]
    made = published_backbone(backbone) if isinstance(backbone, str) else backbone
    return CPANet(made, *_parts(ablation, width), width=width, **further)
