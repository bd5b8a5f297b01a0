"""Overrides of ``run.py`` composed outside a run: the checked configuration, its test episodes and its network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from benchmarks.measure import ROOT
from cpanet import config, data
from cpanet.cli.launch import register
from cpanet.data.memory import dataset_of


def composed(overrides: Iterable[str]) -> config.Config:
    """The checked configuration of a command line of ``run.py``. UserError where it is refused."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return config.validate(compose("config", list(overrides)))


def episodes_and_network(
    settings: config.Config, choose: Callable[[list[data.Episode]], list[data.Episode]]
) -> tuple[data.Batch, Any]:
    """Those of the test episodes that ``choose`` takes, as one batch, and the network as a run begins with it."""
    from cpanet.components import build_model

    dataset = dataset_of(settings.data, settings.shot)
    drawn = data.test_episodes(dataset, settings.fold, settings.shot, settings.evaluate.episode_seed)
    return data.test_batch(dataset, choose(drawn), settings.data.image_size), build_model(settings)[0]


def recorded(settings: config.Config) -> dict[str, Any]:
    """The configuration for a record, without this machine's folders."""
    found = settings.model_dump()
    found["backbone"]["weights"] = Path(settings.backbone.weights).name
    found["data"]["root"] = None
    return found
