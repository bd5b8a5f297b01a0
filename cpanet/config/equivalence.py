"""Fingerprint of the function that a configuration computes: equal for configurations that are the same function.

The published tables hold such pairs unawares (the full model with k = 0 trains exactly as the model without SA), and
read their difference as an effect. A key that is not known to be without influence counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cpanet.config.keys import leaves
from cpanet.options import current

# Names of choices whose content is in the configuration too, and what leaves the numbers alone.
_NO_INFLUENCE = (
    "profile",
    "log",
    "checkpoint.every_minutes",
    "ablation.name",
    "ablation.label",
    "protocol.name",
    "recipe.name",
    "recipe.optimizer.name",
    "recipe.schedule.name",
    "backbone.label",
    "backbone.imagenet",  # only through the weights that were found
    "backbone.lr",  # only through recipe.optimizer.lr
    "backbone.epochs",  # only through train.epochs
    "data.label",
    "data.workers",
)
# Keys that the training-free method lacks.
_TRAINED = ("ablation", "loss", "protocol", "recipe", "train", "model", "evaluate.every")
# Choices that earlier versions did not have, at what these versions did.
_DEFAULTS = {
    "protocol.support_mask": "point",
    "data.folds": None,
    "data.leave_out": None,
    "data.mask_values": None,
    "baseline.stage": "f3",
    "model.fused": True,
    "recipe.prior": None,
    "recipe.average.untrained": 0,
    "recipe.loss._target_": "cpanet.losses.SegmentationLoss",
    "recipe.episodes._target_": "cpanet.data.EpisodeChanges",
    "recipe.episodes.invert": 0,
    "recipe.episodes.photometric": 0,
    "recipe.episodes.pseudo": 0,
    "recipe.episodes.distractor": 0,
    "recipe.episodes.negative": 0,
    "recipe.episodes.largest": 0.28,
}


def fingerprint(config: Mapping[str, Any], seed: bool = True) -> str:
    """Hex digest of what the resolved ``config`` (as ``Config.model_dump()`` gives it) computes.

    Two runs with the same fingerprint are the same computation. With ``seed=False`` the seed is left out: equal for
    runs of the same function, whatever their seed.
    """
    text = json.dumps(_numbers(essence(config, seed)), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def essence(config: Mapping[str, Any], seed: bool = True) -> dict[str, Any]:
    """``config`` without what has no influence, and with equal functions spelt equally: dotted keys to values."""
    values = {key: value for key, value in leaves(current(config)).items() if not covered(key, _NO_INFLUENCE)}
    if "backbone._target_" in values:
        values.pop("backbone.name", None)  # class and arguments say it
    if not seed:
        values.pop("seed", None)
    if values.get("method") == "prototype":
        kept = "protocol.support_mask"
        values = {k: value for k, value in values.items() if k == kept or not covered(k, _TRAINED)}
    else:
        values.pop("baseline.stage", None)  # the baseline of a trained network
    values.pop("recipe.episodes.name", None)
    for key, default in _DEFAULTS.items():
        if values.get(key) == default:
            values.pop(key, None)
    _auxiliary(values)
    _protocol(values)
    if values.get("recipe.init.head") != "prototype" or values.get("recipe.init.projection") == "random":
        values.pop("recipe.init.projection", None)  # which runs from before it was a choice do not have
    return values


def _auxiliary(values: dict[str, Any]) -> None:
    """k = 0 is no auxiliary branch (weights are drawn by name, and it is not computed); without it k says nothing."""
    if values.get("ablation.auxiliary", "") is None or values.get("loss.k") == 0:
        own = [key for key in values if covered(key, ["ablation.auxiliary"])]
        for key in (*own, "loss.k", "protocol.aux_loss", "protocol.aux_padding"):
            values.pop(key, None)


def _protocol(values: dict[str, Any]) -> None:
    """Deviations that come to the same thing here."""
    shot = values.get("shot")
    if shot == 1:
        values.pop("protocol.aux_loss", None)  # the last shot is the only one
    batches = {values.get("train.batch_size"), values.get("evaluate.batch_size")}
    episodes = values.get("evaluate.episodes")
    if batches == {shot} and (shot == 1 or episodes is None or episodes >= shot):
        values["protocol.prototype_average"] = "shots"  # divided by the same number
    if values.get("backbone.batch_norm") is False:
        values.pop("protocol.backbone_mode", None)  # no BatchNorm, nothing that could drift


def covered(key: str, names: Iterable[str]) -> bool:
    """Whether ``key`` is one of ``names`` or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Whole floats as integers, so that 0 and 0.0 are one."""
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in values.items()}
