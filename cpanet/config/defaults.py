"""Values of ``device=auto``, ``profile=auto`` and an unchosen recipe on this machine."""

from __future__ import annotations

from cpanet.runtime import probe_cuda

RECIPE_OF_PROFILE = {"paper": "paper", "cpu": "steel"}  # every other profile: fast


def profile_for(device: str, synthetic: bool) -> str:
    """The profile that ``profile=auto`` stands for: ``paper`` on CUDA; on a CPU ``cpu``, or ``quick`` for synthetic data.

    An explicit ``device=cuda`` is taken at its word; the runtime stops the run where there is none.
    """
    if device_for(device) == "cuda":
        return "paper"
    return "quick" if synthetic else "cpu"


def device_for(device: str) -> str:
    """The device that ``device=auto`` stands for here."""
    usable = device == "cuda" or (device == "auto" and probe_cuda().usable)
    return "cuda" if usable else "cpu"


def recipe_for(profile: str, device: str, synthetic: bool) -> str:
    """The recipe that belongs to a profile, unless one was chosen."""
    if profile == "auto":
        profile = profile_for(device, synthetic)
    return RECIPE_OF_PROFILE.get(profile, "fast")
