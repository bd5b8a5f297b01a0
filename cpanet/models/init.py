"""Initial weights, drawn on the host: one generator a parameter, seeded by (seed, name).

Two networks that share a layer's name share its initial weights, whatever else they contain and on whatever device, so
that runs of an ablation start from the same point.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from cpanet.runtime import jt

nn = jt.nn


def initialise(model, seed: int, head: str = "released") -> None:
    """Draw all weights of ``model`` in place.

    A module declares how its weights start by ``initial(name, shape, scheme, rng)``, which gives an array, or None for the
    rule of the scheme; of modules inside each other the outer one is asked first. Norms of Jittor start at weight 1 and
    bias 0. The scheme ``head`` is the rule for everything else outside the backbone:

    ``released``: Kaiming-uniform with a = √5, that is U(±1/√fan_in), biases likewise.
    ``kaiming_normal``: N(0, √(2/fan_in)), which keeps the size of the signal; biases 0.
    ``prototype``: the same, and where a module says so the untouched network is a prototype comparison
    (:data:`THRESHOLD` and what follows); what that does not need is smaller by :data:`NOISE` where it adds to it.

    The backbone gets Kaiming-normal weights (fan_out), the usual start of a network without ImageNet weights. Raises
    ValueError for a one-dimensional weight that is no bias and that nobody declares.
    """
    state = {n: p for n, p in model.state_dict(to="").items() if not _is_statistic(n)}
    smaller = getattr(getattr(model, "prior", None), "head_start", 1.0)
    for name, parameter in state.items():
        shape = tuple(parameter.shape)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value = _declared(model, name, shape, head, rng)
        if value is None:
            value = _by_scheme(name, shape, head, rng, state)
        if smaller != 1.0 and name.startswith(model.logit_weights):
            value = value * smaller
        parameter.assign(jt.array(np.asarray(value, np.float32)))


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def _declared(model, name: str, shape: tuple, scheme: str, rng) -> np.ndarray | None:
    """Initial values that the modules holding the weight declare, the outermost first."""
    module, rest = model, name
    while True:
        rule = getattr(module, "initial", None)
        value = None if rule is None else rule(rest, shape, scheme, rng)
        if value is not None:
            return value
        first, _, further = rest.partition(".")
        if not further:
            break
        module, rest = (module[int(first)] if first.isdigit() else getattr(module, first)), further
    if isinstance(module, (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm)):
        return np.zeros(shape) if rest == "bias" else np.ones(shape)
    return None


def _by_scheme(name: str, shape: tuple, scheme: str, rng, state: dict) -> np.ndarray:
    in_backbone = name.startswith("backbone.")
    if len(shape) > 1:
        if in_backbone:
            return rng.standard_normal(shape) * math.sqrt(2.0 / (shape[0] * math.prod(shape[2:])))
        if scheme != "released":
            return kaiming_normal(shape, rng)
        bound = 1.0 / math.sqrt(math.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape)
    owner, _, kind = name.rpartition(".")
    kernel = state.get(f"{owner}.weight")
    if kind != "bias" or kernel is None or len(kernel.shape) < 2:
        raise ValueError(
            f"nothing says how {name}, a weight of shape {shape}, starts. Give the class that holds it a method "
            "initial(name, shape, scheme, rng) that returns its first values."
        )
    if in_backbone or scheme != "released":
        return np.zeros(shape)
    bound = 1.0 / math.sqrt(math.prod(kernel.shape[1:]))
    return rng.uniform(-bound, bound, shape)


def kaiming_normal(shape: tuple, rng) -> np.ndarray:
    """N(0, √(2/fan_in)) for a kernel of ``shape``."""
    return rng.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))


# ---------------------------------------------------------------------- the network as a prototype comparison

NOISE = 0.1  # of a Kaiming-normal draw, beside the weights that carry the comparison
THRESHOLD = 0.25  # mean of min(p, q) over channels, features in units of their RMS, where the logit is 0
PASSED = 1.25  # factor of SSA while its attention is undecided: residual 1, attention 0.5 · 0.5
LOGIT = 4.0  # logit of a position that has all of its prototype, and minus that of one that has nothing of it


# The comparison: ``down_query`` and ``down_supp`` are the same random orthogonal projection and its negative, so that ReLU
# loses nothing. ``compare1`` hands the first half S of those channels on, q, and beside them what q exceeds the prototype p
# by, relu(q − p); all that follows hands its input through; the decoder's classifier takes the difference, Σ_S q −
# relu(q − p) = Σ_S min(p, q), the histogram intersection of query and prototype. It is the similarity that suits a prototype
# which is a maximum (CPP) as well as a mean, needs no multiplication, and is zero where a defect has vanished from the grid.


def signed_projection(shape: tuple) -> np.ndarray:
    """[A; −A] in the order of halves that :func:`intersection` wants; A has orthonormal rows. The same for both sides."""
    width, channels = shape[:2]
    return _signed(_orthonormal(channels, width // 2).T)


def _signed(rows: np.ndarray) -> np.ndarray:
    """Rows A (C/2, C_b) → the kernel (C, C_b, 1, 1) of :func:`signed_projection`."""
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


def intersection(width: int) -> np.ndarray:
    """(C, 2C) on [prototype, query]: the query's first C/2 channels, then what they exceed the prototype's by."""
    half = width // 2
    identity, nothing = np.eye(half), np.zeros((half, half))
    return np.block([[nothing, nothing, identity, nothing], [-identity, nothing, identity, nothing]])


def centre_tap(shape: tuple) -> np.ndarray:
    """The convolution that hands its first C_out input channels through."""
    kernel = np.zeros(shape)
    channels = np.arange(shape[0])
    kernel[channels, channels, shape[2] // 2, shape[3] // 2] = 1.0
    return kernel


def logit_biases() -> np.ndarray:
    """Logits of background and defect where nothing of the prototype is there."""
    return np.array([LOGIT / 2, -LOGIT / 2])


def difference(shape: tuple) -> np.ndarray:
    """(2, C, 1, 1): half the logit for defect, minus half for background, the mean of Σ_S min(p, q) over S in units of
    :data:`THRESHOLD`."""
    half = shape[1] // 2
    row = np.concatenate([np.ones(half), -np.ones(half)]) * LOGIT / (2 * THRESHOLD * half)
    return np.stack([-row, row])[:, :, None, None]
