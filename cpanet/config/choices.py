"""The choices that ``auto`` leaves to this machine: profile, recipe, data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console

from cpanet.data import resolve_auto
from cpanet.runtime import probe_cuda

RECIPE_OF_PROFILE = {"paper": "paper"}  # every other profile: fast


def profile_for(device: str) -> str:
    """The profile that ``profile=auto`` stands for: ``paper`` on CUDA, ``quick`` on a CPU.

    An explicit ``device=cuda`` is taken at its word; the runtime stops the run where there is none.
    """
    return "paper" if device_for(device) == "cuda" else "quick"


def device_for(device: str) -> str:
    """What ``device=auto`` stands for here."""
    usable = device == "cuda" or (device == "auto" and probe_cuda().usable)
    return "cuda" if usable else "cpu"


def recipe_for(profile: str, device: str) -> str:
    """The recipe that belongs to a profile, unless one was chosen."""
    if profile == "auto":
        profile = profile_for(device)
    return RECIPE_OF_PROFILE.get(profile, "fast")


def settle(config: DictConfig) -> None:
    """Replace ``auto`` by what it stands for here, and names that no longer say what is on; in place.

    Raises UserError where the folder given for ``data=auto`` is not FSSD-12.
    """
    with read_write(config), open_dict(config):
        data = config.get("data")
        if isinstance(data, DictConfig):
            root = _folder(data.get("root"))
            if data.get("name") == "auto" and (root is None or isinstance(root, Path)):
                data.name, root, _ = resolve_auto("auto", root)
            data.root = str(root) if isinstance(root, Path) else root
        ablation = config.get("ablation")
        if isinstance(ablation, DictConfig):  # ablation=full ablation.cpp=false is sa_ssa
            on = [part for part in ("cpp", "sa", "ssa") if ablation.get(part) is True]
            ablation.name = "full" if len(on) == 3 else "_".join(on) or "none"


def announce(config: DictConfig, console: Console) -> None:
    """Say, a line each, what ``auto`` became, why, and how to have it otherwise."""
    if config.get("task") != "train":
        return  # a checkpoint settles what matters
    chosen = config.hydra.runtime.choices
    if chosen.get("profile") == "auto":
        _say(console, f"profile=auto → {config.profile}: {_why(config)}")
    if chosen.get("data") == "auto":
        name, _, why = resolve_auto("auto", _folder(config.data.root))
        _say(console, f"data=auto → {name}: {why}")


def _why(config: DictConfig) -> str:
    if config.profile == "paper":
        return "the paper's protocol, on CUDA. For minutes instead of hours: profile=quick"
    reason = "device=cpu" if config.device == "cpu" else f"CUDA is not used, {probe_cuda().reason}"
    return f"{reason}. For the paper's protocol: profile=paper"


def _folder(root: Any) -> Any:
    """A path as typed, made absolute, so that a record can be read from elsewhere; "" counts as none."""
    return Path(root).expanduser().absolute() if isinstance(root, str) and root else root or None


def _say(console: Console, line: str) -> None:
    console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
