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
    ``prototype``: the untouched network is a prototype comparison (:func:`_comparison`); what that does not need starts
    as with ``kaiming_normal``, smaller by :data:`NOISE` where it adds to it.
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
    if scheme == "prototype" and name in ("classify.bias", "ssa.classify.bias"):
        return np.array([LOGIT / 2, -LOGIT / 2])
    if len(shape) == 1:
        fan_in = int(np.prod(state[name.replace(".bias", ".weight")].shape[1:]))
        bound = 1.0 / math.sqrt(fan_in)
        return np.zeros(shape) if scheme != "released" else rng.uniform(-bound, bound, shape)
    fan_in = int(np.prod(shape[1:]))
    if scheme == "kaiming_normal":
        return rng.standard_normal(shape) * math.sqrt(2.0 / fan_in)
    if scheme == "prototype":
        return _prototype(name, shape, rng)
    if name.startswith("ssa.") and len(shape) == 4:
        return rng.standard_normal(shape) * math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
    bound = 1.0 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)


# ---------------------------------------------------------------------- the network as a prototype comparison

NOISE = 0.1  # of a Kaiming-normal draw, beside the weights that carry the comparison
THRESHOLD = 0.25  # mean of min(p, q) over channels, features in units of their RMS, where the logit is 0
PASSED = 1.25  # what SSA multiplies by while its attention is undecided: residual 1, attention 0.5 · 0.5
LOGIT = 4.0  # logit of a position that has all of its prototype, and minus that of one that has nothing of it


def _prototype(name: str, shape: tuple, rng) -> np.ndarray:
    """Start of one convolution (kernel ``shape``, or its bias) such that the head compares with the prototype.

    ``down_query`` and ``down_supp`` are the same random orthogonal projection and its negative, so that ReLU loses nothing.
    ``compare1`` hands the first half S of those channels on, q, and beside them what q exceeds the prototype p by,
    relu(q − p); all that follows hands its input through; ``classify`` takes the difference, Σ_S q − relu(q − p) =
    Σ_S min(p, q), the histogram intersection of query and prototype. It is the similarity that suits a prototype which is
    a maximum (CPP) as well as a mean, needs no multiplication, and is zero where a defect has vanished from the small grid.
    """
    kernel = rng.standard_normal(shape) * math.sqrt(2.0 / int(np.prod(shape[1:])))
    layer = name.rsplit(".", 1)[0]
    if layer in ("down_query", "down_supp"):
        return _signed_projection(shape)
    if layer == "compare1":
        return NOISE * kernel + _intersection(shape[0])[:, :, None, None]
    if layer in ("compare2", "refine1", "refine2", "ssa.fuse", "ssa.mix", "ssa.residual"):
        return NOISE * kernel + _centre_tap(shape)
    if layer in ("classify", "ssa.classify"):
        return NOISE * kernel + _difference(shape) / (PASSED if layer.startswith("ssa.") else 1.0)
    if layer.startswith(("ssa.channel", "ssa.spatial")):
        return NOISE * kernel
    return kernel


def _signed_projection(shape: tuple) -> np.ndarray:
    """[A; −A] in the order of halves that :func:`_intersection` wants; A has orthonormal rows. The same for both sides."""
    width, channels = shape[:2]
    return _signed(_orthonormal(channels, width // 2).T)


def _signed(rows: np.ndarray) -> np.ndarray:
    """Rows A (C/2, C_b) → the kernel (C, C_b, 1, 1) of :func:`_signed_projection`."""
    quarter = len(rows) // 2
    signed = [rows[:quarter], -rows[:quarter], rows[quarter:], -rows[quarter:]]
    return np.concatenate(signed)[:, :, None, None]


def _orthonormal(n: int, columns: int) -> np.ndarray:
    """Random matrix (n, columns) with orthonormal columns, the same at every call."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, columns)))
    return q


def principal_projection(features: np.ndarray, rows: int) -> np.ndarray:
    """The directions in which features differ most, as projection (rows, C) for :func:`start_from`.

    ``features`` (N, C, h, w), normalised as the head receives them. Principal components, each divided by the square root
    of its standard deviation, so that the first ones do not decide alone; then rotated at random, since what follows
    compares channel by channel; of root mean square 1 over these features.
    """
    flat = features.transpose(1, 0, 2, 3).reshape(features.shape[1], -1).astype(np.float64)
    variances, directions = np.linalg.eigh(flat @ flat.T / flat.shape[1])
    order = np.argsort(variances)[::-1][:rows]
    kept = np.maximum(variances[order], 1e-6 * variances.max())
    projection = _orthonormal(len(order), len(order)) @ (directions[:, order] * kept**-0.25).T
    return projection / np.sqrt(np.mean(np.square(projection @ flat)))


def start_from(model, projection: np.ndarray) -> None:
    """Let the head of ``model``, initialised as ``prototype``, compare in ``projection`` (C/4, C_b), in place.

    The first half of its channels, on which the comparison rests, takes these rows and their negatives; the second keeps
    its random ones.
    """
    kernel = np.array(model.down_query.weight.numpy())
    half = len(kernel) // 2
    kernel[:half] = np.concatenate([projection, -projection])[:, :, None, None]
    for layer in (model.down_query, model.down_supp):
        layer.weight.assign(jt.array(kernel.astype(np.float32)))


def _intersection(width: int) -> np.ndarray:
    """(C, 2C) on [prototype, query]: the query's first C/2 channels, then what they exceed the prototype's by."""
    half = width // 2
    identity, nothing = np.eye(half), np.zeros((half, half))
    return np.block([[nothing, nothing, identity, nothing], [-identity, nothing, identity, nothing]])


def _centre_tap(shape: tuple) -> np.ndarray:
    """The convolution that hands its first C_out input channels through."""
    kernel = np.zeros(shape)
    channels = np.arange(shape[0])
    kernel[channels, channels, shape[2] // 2, shape[3] // 2] = 1.0
    return kernel


def _difference(shape: tuple) -> np.ndarray:
    """(2, C, 1, 1): half the logit for defect, minus half for background, the mean of Σ_S min(p, q) over S in units of
    :data:`THRESHOLD`."""
    half = shape[1] // 2
    row = np.concatenate([np.ones(half), -np.ones(half)]) * LOGIT / (2 * THRESHOLD * half)
    return np.stack([-row, row])[:, :, None, None]
