"""Initial weights, drawn on the host: one generator a parameter, seeded by (seed, name).

Two networks that share a layer's name share its initial weights, whatever else they contain and on whatever device, so
that runs of an ablation start from the same point.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from cpanet.runtime import jt


def initialise(model, seed: int, head: str = "released") -> None:
    """Draw all weights of ``model`` in place.

    ``released``: SSA's convolutions from N(0, √(2/(k²·C_out))), CPP's closing BatchNorm at 0, every other convolution of
    the head Kaiming-uniform with a = √5, that is U(±1/√fan_in), biases likewise.
    ``kaiming_normal``: every convolution of the head from N(0, √(2/fan_in)), which keeps the size of the signal.
    The backbone gets Kaiming-normal weights (fan_out), the usual start of a network without ImageNet weights.
    """
    state = {
        name: parameter for name, parameter in model.state_dict(to="").items() if not _is_statistic(name)
    }
    for name, parameter in state.items():
        shape = tuple(parameter.shape)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value = (
            _backbone(name, shape, rng)
            if name.startswith("backbone.")
            else _head(name, shape, rng, head, state)
        )
        if value is not None:
            parameter.assign(jt.array(value.astype(np.float32)))


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def _backbone(name: str, shape: tuple, rng) -> np.ndarray | None:
    if len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3]
        return rng.standard_normal(shape) * math.sqrt(2.0 / fan_out)
    return np.zeros(shape) if name.endswith("bias") else np.ones(shape)


def _head(name: str, shape: tuple, rng, scheme: str, state: dict) -> np.ndarray | None:
    if name.startswith("cpp.norm."):
        return np.zeros(shape)
    if len(shape) == 1:
        fan_in = int(np.prod(state[name.replace(".bias", ".weight")].shape[1:]))
        bound = 1.0 / math.sqrt(fan_in)
        return np.zeros(shape) if scheme == "kaiming_normal" else rng.uniform(-bound, bound, shape)
    fan_in = int(np.prod(shape[1:]))
    if scheme == "kaiming_normal":
        return rng.standard_normal(shape) * math.sqrt(2.0 / fan_in)
    if name.startswith("ssa.") and len(shape) == 4:
        return rng.standard_normal(shape) * math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
    bound = 1.0 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)
