"""A model as its checkpoint describes it, ready for inference."""

from __future__ import annotations

from typing import Any

from cpanet.checkpoint.description import Description
from cpanet.checkpoint.weights import assign, load_backbone_weights, network_tensors
from cpanet.models import PrototypeBaseline, auxiliary_name, backbone_of, network_of
from cpanet.models.pretrained import find_weights
from cpanet.options import current
from cpanet.runtime import user_cache


def restore(description: Description) -> Any:
    """The network in evaluation mode, without the auxiliary branch, which inference never asks; or the training-free method.

    Raises UserError naming every tensor that does not fit. The training-free method has random features where no
    weights of its backbone are found.
    """
    config = current(description.config)
    section = config["backbone"]
    if description.path is None or config.get("method") == "prototype":
        weights = section.get("weights", "auto")
        path, _ = find_weights(str(section["name"]), section.get("imagenet"), weights, user_cache())
        stage = config.get("baseline", {}).get("stage", "f3")
        support_mask = config.get("protocol", {}).get("support_mask", "point")
        model: Any = PrototypeBaseline(backbone_of(section), stage, int(config.get("seed", 0)), support_mask)
        if path is not None:
            load_backbone_weights(model, path)
    else:
        model = network_of(config, backbone_of(section), inference=True)
        branch = auxiliary_name(config["ablation"])
        tensors = network_tensors(description.path, inference=True)
        if branch is not None:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{branch}.")}
        assign(model, tensors, str(description.path))
    model.eval()
    return model
