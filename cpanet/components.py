"""The parts that a configuration names: model, backbone weights, optimiser, average of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpanet.checkpoint.weights import load_backbone_weights
from cpanet.config import Config
from cpanet.config.schema import Common
from cpanet.console import log
from cpanet.errors import UserError
from cpanet.models import PrototypeBaseline, backbone_of, network_of
from cpanet.models.pretrained import find_weights, instructions
from cpanet.recipe import WeightAverage
from cpanet.runtime import user_cache


def build_model(config: Common) -> tuple[Any, Path | None]:
    """The model of ``config`` with its backbone weights, and the file that these came from (None: random)."""
    cache = user_cache()
    name, imagenet = config.backbone.name, config.backbone.imagenet
    path, sentence = find_weights(name, imagenet, config.backbone.weights, cache)
    if path is None and config.backbone.weights != "random":
        if config.profile == "paper":
            raise UserError(f"{sentence}. {instructions(name, imagenet, cache)}")
        log(
            f"{sentence}; going on with random features. Its numbers say nothing about the paper's.", "yellow"
        )
    else:
        log(sentence)
    if config.method == "prototype":
        baseline = baseline_of(config, backbone_of(config.backbone.model_dump()), config.seed)
        if path is not None:
            load_backbone_weights(baseline, path)
        return baseline, path
    model = network_of(
        config.model_dump(),
        backbone_of(config.backbone.model_dump()),
        seed=config.seed,
        head_init=config.recipe.init.head,
    )
    if path is not None:
        load_backbone_weights(model, path)
    return model, path


def baseline_of(config: Common, backbone: Any, seed: int | None = None) -> PrototypeBaseline:
    """The training-free baseline as ``config`` has it; without ``seed`` it shares ``backbone`` with a network."""
    return PrototypeBaseline(backbone, config.baseline.stage, seed, config.protocol.support_mask)


def build_training(config: Config, model: Any) -> tuple[Any, Any]:
    """Optimiser and, where the recipe has one, the average of the weights; both None where nothing is trained."""
    if config.method == "prototype":
        return None, None
    scored = config.recipe.average
    plain = scored.ema is None and not scored.untrained
    average = None if plain else WeightAverage(model, scored.ema, scored.untrained)
    return config.recipe.optimizer.build(model), average
