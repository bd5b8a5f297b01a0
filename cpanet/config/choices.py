"""The choices that ``auto`` leaves to this machine: profile, recipe, data set."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console

RECIPE_OF_PROFILE = {"paper": "paper"}  # every other profile: fast


def cuda() -> tuple[bool, str]:
    """Whether CUDA can be used here, and why not."""
    try:
        from cpanet.runtime import probe_cuda
    except ImportError:
        return False, "cpanet.runtime is not there"
    found = probe_cuda()
    return bool(found.usable), str(found.reason)


def profile_for(device: str) -> str:
    """The profile that ``profile=auto`` stands for: ``paper`` on CUDA, ``quick`` on a CPU.

    An explicit ``device=cuda`` is taken at its word; the runtime stops the run where there is none.
    """
    usable = device == "cuda" or (device == "auto" and cuda()[0])
    return "paper" if usable else "quick"


def recipe_for(profile: str, device: str) -> str:
    """The recipe that belongs to a profile, unless one was chosen."""
    if profile == "auto":
        profile = profile_for(device)
    return RECIPE_OF_PROFILE.get(profile, "fast")


def data_for(name: str, root: Any) -> tuple[str, Any, str]:
    """What ``data=auto`` stands for: name, root, and a sentence that says why."""
    try:
        from cpanet.data import resolve_auto
    except ImportError:
        return "embedded", root, "cpanet.data is not there"
    return resolve_auto(name, root)


def settle(config: DictConfig) -> None:
    """Replace ``auto`` by the choice, and the ablation's name where its flags were changed, in place."""
    with read_write(config), open_dict(config):
        data = config.get("data")
        if isinstance(data, DictConfig) and data.get("name") == "auto":
            name, root, _ = data_for("auto", data.get("root"))
            data.name, data.root = name, None if root is None else str(root)
        ablation = config.get("ablation")
        if isinstance(ablation, DictConfig):
            on = [part for part in ("cpp", "sa", "ssa") if ablation.get(part) is True]
            ablation.name = "full" if len(on) == 3 else "_".join(on) or "none"


def announce(config: DictConfig, console: Console) -> None:
    """Say, a line each, what ``auto`` became and how to have it otherwise."""
    chosen = config.hydra.runtime.choices
    if chosen.get("profile") == "auto":
        profile, why = config.profile, ""
        if profile != "paper":
            why = "device=cpu" if config.device == "cpu" else f"CUDA is not used: {cuda()[1]}"
        line = f"profile=auto → {profile}" + (f" ({why})" if why else " (CUDA)")
        hint = " For the paper's protocol: profile=paper" if profile != "paper" else ""
        console.print(line + hint, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    if chosen.get("data") == "auto":
        name, _, why = data_for("auto", config.data.root if config.data.name != "auto" else None)
        console.print(
            f"data=auto → {name} ({why})", style="bold yellow", markup=False, highlight=False, soft_wrap=True
        )
