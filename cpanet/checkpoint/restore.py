"""A model as its checkpoint describes it, ready for inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpanet.checkpoint.description import Description
from cpanet.checkpoint.files import read_tensors
from cpanet.checkpoint.names import from_released, looks_released
from cpanet.checkpoint.weights import MODEL_PREFIX, assign
from cpanet.data.embedded import default_cache
from cpanet.models import CPANet, Protocol, PrototypeFloor
from cpanet.models.pretrained import find_weights

AVERAGE_PREFIX = "average."


def restore(description: Description) -> Any:
    """The network in evaluation mode, without the auxiliary branch, which inference never asks.

    Raises UserError naming every tensor that does not fit.
    """
    config = description.config
    if description.path is None or config.get("method") == "prototype":
        backbone = config["backbone"]
        return prototype_floor(backbone["name"], backbone.get("weights", "auto"), int(config.get("seed", 0)))[
            0
        ]
    ablation = config["ablation"]
    model = CPANet(
        config["backbone"]["name"],
        cpp=ablation["cpp"],
        sa=False,
        ssa=ablation["ssa"],
        width=config["model"]["width"],
        protocol=Protocol(**_switches(config.get("protocol", {}))),
        dropout=False,
        door=door_of(description),
    )
    assign(model, inference_tensors(description.path), str(description.path))
    model.eval()
    return model


def door_of(description: Description) -> str:
    """What its features pass on their way into the head; the paper's network, and a file of weights alone: nothing."""
    return str(description.config.get("recipe", {}).get("features", "plain"))


def prototype_floor(backbone: str, weights: str = "auto", seed: int = 0) -> tuple[Any, str]:
    """The training-free method, and a sentence that says where its features come from."""
    path, sentence = find_weights(backbone, weights, default_cache())
    model = PrototypeFloor(backbone, weights=path, seed=seed)
    model.eval()
    return model, sentence + ("" if path is not None else "; its features are random")


def inference_tensors(path: Path) -> dict[str, Any]:
    """The tensors that inference needs, in this project's names; averaged weights where the file has such."""
    tensors = read_tensors(path)
    own = {n[len(MODEL_PREFIX) :]: t for n, t in tensors.items() if n.startswith(MODEL_PREFIX)}
    average = {n[len(AVERAGE_PREFIX) :]: t for n, t in tensors.items() if n.startswith(AVERAGE_PREFIX)}
    average.pop("steps", None)
    if own:
        own.update(average)
    elif looks_released(tensors):
        renamed = ((from_released(name), tensor) for name, tensor in tensors.items())
        own = {name: tensor for name, tensor in renamed if name is not None}
    else:
        own = tensors
    return {name: tensor for name, tensor in own.items() if not name.startswith("sa.")}


def _switches(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key != "name"}
