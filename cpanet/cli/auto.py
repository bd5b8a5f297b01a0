"""``auto`` in a composed configuration replaced by what it stands for here, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cpanet import options
from cpanet.console import log
from cpanet.data import resolve_auto
from cpanet.runtime import probe_cuda

NO_PATHS = (("backbone.weights", "auto"), ("backbone.weights", "random"), ("backbone.weights", ""))


def make_absolute(config: DictConfig) -> None:
    """Paths of data and weights as typed, made absolute, so that a record can be read from elsewhere; in place."""
    with read_write(config), open_dict(config):
        for key in ("data.root", "backbone.weights"):
            value = OmegaConf.select(config, key)
            if isinstance(value, str) and (key, value) not in NO_PATHS:
                OmegaConf.update(config, key, str(absolute(value)) if value else None)


def absolute(path: str) -> Path:
    """``path`` from the root of the file system."""
    return Path(path).expanduser().absolute()


def resolve_auto_options(config: DictConfig) -> None:
    """Replace ``auto`` by what it stands for here, and names that no longer say what is on; in place.

    Raises UserError where the folder given for ``data=auto`` is not FSSD-12.
    """
    with read_write(config), open_dict(config):
        data = config.get("data")
        if isinstance(data, DictConfig):
            root = data.get("root")
            if data.get("name") == "auto" and (root is None or isinstance(root, str)):
                name, found, _ = resolve_auto(absolute(root) if root else None)
                data.update({**options.read("data", name), "root": str(found) if found else None})
        ablation = config.get("ablation")
        if isinstance(ablation, DictConfig):
            parts: Any = OmegaConf.to_container(ablation, resolve=False)
            config.ablation = options.named_for_its_parts(parts)


def announce(config: DictConfig) -> None:
    """Log, a line each, what ``auto`` became, why, and how to have it otherwise."""
    if config.get("task") != "train":
        return  # a checkpoint decides what matters
    chosen = config.hydra.runtime.choices
    if chosen.get("profile") == "auto":
        _log_choice(f"profile=auto → {config.profile}: {_why(config)}")
    if chosen.get("data") == "auto":
        name, _, why = resolve_auto(absolute(config.data.root) if config.data.root else None)
        _log_choice(f"data=auto → {name}: {why}")


def _why(config: DictConfig) -> str:
    if config.profile == "paper":
        return "the paper's protocol, on CUDA. For minutes instead of hours: profile=quick"
    reason = "device=cpu" if config.device == "cpu" else f"CUDA is not used, {probe_cuda().reason}"
    return f"{reason}. For the paper's protocol: profile=paper"


def _log_choice(line: str) -> None:
    log(line, "bold yellow")
