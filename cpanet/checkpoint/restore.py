"""A model as its checkpoint describes it, ready for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpanet.checkpoint.description import Description
from cpanet.checkpoint.weights import assign, load_backbone_weights, network_tensors
from cpanet.models import PrototypeBaseline, auxiliary_name, backbone_of, network_of
from cpanet.models.pretrained import find_weights
from cpanet.options import current
from cpanet.runtime import user_cache


def restore(description: Description) -> Any:
    """The network in evaluation mode, without the auxiliary branch, which inference never asks.

    Raises UserError naming every tensor that does not fit.
    """
    config = current(description.config)
    if description.path is None or config.get("method") == "prototype":
        backbone = config["backbone"]
        return training_free(
            backbone,
            backbone.get("weights", "auto"),
            int(config.get("seed", 0)),
            config.get("baseline", {}).get("stage", "f3"),
            config.get("protocol", {}).get("support_mask", "point"),
        )
    model = network_of(config, backbone_of(config["backbone"]), inference=True)
    branch = auxiliary_name(config["ablation"])
    tensors = network_tensors(description.path, inference=True)
    if branch is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{branch}.")}
    assign(model, tensors, str(description.path))
    model.eval()
    return model


def training_free(
    backbone: str | Mapping[str, Any], weights: str, seed: int, stage: str, support_mask: str
) -> PrototypeBaseline:
    """The training-free method in evaluation mode; ``stage`` and ``support_mask``: see :class:`PrototypeBaseline`.

    ``backbone``: the name of a published one, or a ``backbone`` section of a configuration. ``weights``: of the backbone,
    as :func:`find_weights` takes them; where there are none its features are random.
    """
    section = current({"backbone": {"name": backbone} if isinstance(backbone, str) else backbone})["backbone"]
    path, _ = find_weights(str(section["name"]), section.get("imagenet"), weights, user_cache())
    model = PrototypeBaseline(backbone_of(section), stage, seed, support_mask)
    if path is not None:
        load_backbone_weights(model, path)
    model.eval()
    return model
