"""Values from a checkpoint's record for the keys that were not typed: ``task=evaluate checkpoint=RUN shot=5``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cpanet import options, targets
from cpanet.checkpoint.description import Description, describe
from cpanet.config.equivalence import covered
from cpanet.config.keys import leaves, show
from cpanet.errors import UserError

# How a command works, never taken from a checkpoint.
OWN = ("task", "checkpoint", "device", "precision", "evaluate", "log", "data.workers", "resume")
# Decided by the weights: anything else would not fit them.
FIXED = (
    "method",
    "backbone",
    "ablation.prototype",
    "ablation.decoder",
    "model.width",
    "recipe.features",
    "recipe.prior",
)
# Of a backbone's section, what may be said beside a checkpoint.
FREE = tuple(f"backbone.{key}" for key in options.BESIDE_NETWORK)


def adopt(config: DictConfig, overrides: Iterable[str]) -> None:
    """Fill ``config`` of a task with a checkpoint from it, as far as ``overrides`` leave it open; in place.

    Raises UserError where what was typed contradicts the weights, and where there is no such checkpoint.
    """
    with read_write(config), open_dict(config):
        for key in ("checkpoint", "support", "query", "clean"):
            if isinstance(config.get(key), str) and config[key]:
                config[key] = str(Path(config[key]).expanduser().absolute())
    checkpoint = config.get("checkpoint")
    if not isinstance(checkpoint, str) or not checkpoint:
        return
    description = describe(checkpoint)
    targets.check_recorded(description.config, f"checkpoint={checkpoint}")
    typed = typed_keys(map(options.as_typed_now, overrides))
    known = options.current(description.config)
    now = leaves(OmegaConf.create(OmegaConf.to_container(config, resolve=False)))
    recorded = {key: value for key, value in leaves(known).items() if key in now or _is_fixed(key)}
    _refuse_contradictions(config, typed, recorded, description)
    with read_write(config), open_dict(config):
        for key, value in recorded.items():
            if not _covered(key, OWN) and not (_covered(key, typed) and not _is_fixed(key)):
                OmegaConf.update(config, key, value, merge=False)
        if "backbone" in known and targets.KEY in known["backbone"]:  # its arguments are its own: all or none
            kept = {key: config.backbone[key] for key in options.TRAINED_WITH if key in config.backbone}
            config.backbone = {**known["backbone"], **kept}
        if "ablation" in known:
            config.ablation = known["ablation"]
        if "data" in known and targets.KEY in known["data"] and not _covered("data", typed):
            kept = {
                key: value for key, value in config.data.items() if _covered(f"data.{key}", {*OWN, *typed})
            }
            config.data = {**known["data"], **kept}
        for kind in ("optimizer", "schedule", "loss", "episodes"):
            section = f"recipe.{kind}"
            own = _covered(section, typed) or any(_covered(key, [section]) for key in typed)
            if kind in known.get("recipe", {}) and not own:
                config.recipe[kind] = known["recipe"][kind]


def typed_keys(overrides: Iterable[str]) -> set[str]:
    """Keys and groups that were given on the command line."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = {override.key_or_group for override in parsed if not override.is_hydra_override()}
    return set(map(options.key_of, keys))


def _covered(key: str, names: Iterable[str]) -> bool:
    """Whether ``key`` is one of ``names`` or below one; the size of the pictures is no matter of the data set."""
    if key == "data.image_size":
        return key in names
    return covered(key, names)


def _is_fixed(key: str) -> bool:
    """Whether the weights decide ``key``."""
    return _covered(key, FIXED) and not _covered(key, FREE)


def _refuse_contradictions(
    config: DictConfig, typed: set[str], recorded: dict[str, Any], description: Description
) -> None:
    keys = [
        key
        for key in recorded
        if _is_fixed(key) and _covered(key, typed) and OmegaConf.select(config, key) != recorded[key]
    ]
    if "backbone.name" in keys:  # says enough: another backbone has other arguments
        keys = [key for key in keys if key == "backbone.name" or not covered(key, ["backbone"])]
    contradictions = [
        f"{key} = {show(OmegaConf.select(config, key))} (in the checkpoint: {show(recorded[key])})"
        for key in keys
    ]
    if contradictions:
        raise UserError(
            f"checkpoint={config.checkpoint} is another network: {'; '.join(contradictions)}. Leave these out."
        )
