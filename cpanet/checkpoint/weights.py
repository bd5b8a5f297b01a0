"""Putting tensors into a model: every missing, unexpected or misshapen one is named, and nothing is loaded then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cpanet.checkpoint import names
from cpanet.checkpoint.files import MODEL_PREFIX, read_tensors
from cpanet.errors import UserError
from cpanet.runtime import jt

# in this project's checkpoints: what is scored, where it is not the trained weights
AVERAGE_PREFIX = "average."


def model_tensors(model: Any) -> dict[str, np.ndarray]:
    """Every parameter and running statistic of ``model`` as NumPy arrays, by name."""
    return model.state_dict(to="numpy")


def network_tensors(path: Path, inference: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a whole network in this project's names; averaged weights where the file has such.

    Released names are translated, with or without ``module.``; ``layer4`` and batch counters are left out.
    ``inference``: of released weights without the auxiliary branch, which is called by its published name there.
    """
    tensors = read_tensors(path)
    own = names.below(MODEL_PREFIX, tensors)
    if own:
        average = names.below(AVERAGE_PREFIX, tensors)
        average.pop("steps", None)
        return {**own, **average}
    if names.looks_released(tensors):
        tensors = names.renamed(tensors, names.from_released)
    return {n: t for n, t in tensors.items() if not (inference and n.startswith("sa."))}


def load_backbone_weights(model: Any, path: Path | str) -> None:
    """Load ImageNet weights into ``model.backbone``, which says what their names are here and which it does not use."""
    backbone = model.backbone
    tensors = {name.removeprefix("module."): tensor for name, tensor in read_tensors(Path(path)).items()}
    assign(
        backbone, names.renamed(tensors, backbone.own_name), f"{path} as weights of backbone={backbone.name}"
    )


def assign(module: Any, tensors: dict[str, np.ndarray], source: str) -> None:
    """Copy ``tensors`` into ``module``, all or nothing.

    Raises :class:`UserError` naming every missing, unexpected, misshapen or non-finite tensor of ``source``.
    """
    state = module.state_dict(to="")
    problems = [f"missing {name}" for name in state if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in state]
    for name in sorted(state.keys() & tensors.keys()):
        wanted, found = tuple(state[name].shape), tuple(tensors[name].shape)
        if wanted != found and not (wanted == (1,) and found == ()):
            problems.append(f"misshapen {name}: {list(found)} in the file, {list(wanted)} in the model")
        elif not np.isfinite(tensors[name]).all():
            problems.append(f"not finite {name}")
    if problems:
        raise UserError(
            f"{source}: does not fit the model ({len(problems)} tensors). Check backbone, ablation and model.width.\n  "
            + "\n  ".join(problems)
        )
    for name, variable in state.items():
        variable.assign(jt.array(tensors[name].astype(np.float32).reshape(variable.shape)))
