"""Jittor against numpy, operator by operator, forward and gradient.

Where CPANet has an operator of its own (batch normalisation, resizing, the loss, those of ``cpanet.ops``) that one is
compared, else Jittor's. They are looked up when a check runs, so that a check sees what the network would see: on CUDA
``cpanet.ops`` is made of Jittor's operators, on the CPU it has kernels.

Convolutions and matrix products may be off by what the precision allows (:func:`cpanet.doctor.precision.tolerance`);
everything else is float32 at every precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

import numpy as np

from cpanet.doctor import reference
from cpanet.doctor.checks import CheckFailed, Checks, Seen, off_by, require_close
from cpanet.doctor.precision import EXACT, tolerance

BATCH, CHANNELS, HEIGHT, WIDTH = 2, 16, 21, 18  # odd and even sides, whole vector registers of channels

# name, kernel, stride, padding, dilation, channels in and out: the convolutions of backbones and head
CONVOLUTIONS = (
    ("3×3", 3, 1, 1, 1, CHANNELS, 24),
    ("1×1", 1, 1, 0, 1, CHANNELS, 24),
    ("2×2 stride 2", 2, 2, 0, 1, CHANNELS, 24),
    ("3×3 stride 2", 3, 2, 1, 1, CHANNELS, 24),
    ("3×3 dilation 2", 3, 1, 2, 2, CHANNELS, 24),
    ("7×7", 7, 1, 3, 1, 2, 1),
    ("7×7 stride 2", 7, 2, 3, 1, 3, CHANNELS),
    ("3×3 of 256 channels", 3, 1, 1, 1, 256, 256),
)

Operator = Callable[..., Any]
Expected = Callable[..., reference.Reference]
Array = np.ndarray


def checks(precision: str = "fp32") -> Checks:
    """All operator checks at ``precision``."""
    return {**product_checks(precision), **float32_checks()}


def compare(
    operator: Operator,
    expected: Expected,
    *inputs: Array,
    allowed: float = EXACT,
    counted: Callable[[], Array] | None = None,
) -> Seen:
    """Output and every gradient of ``operator(*inputs)`` against ``expected(*inputs)``, each off by ``allowed`` at most.

    Gradients are those of ``(output · r).sum()`` with a random r, zero where ``counted()`` is.
    """
    from cpanet.runtime import jt

    output, pullback = expected(*inputs)
    variables = [jt.array(x.astype(np.float32)) for x in inputs]
    result = operator(*variables)
    r = random(output.shape, seed=99)
    if counted is not None:
        r = r * counted()
    gradients = jt.grad((result * jt.array(r.astype(np.float32)).reshape(result.shape)).sum(), variables)
    names = ("input", "weight", "bias") if len(inputs) > 1 else ("input",)
    found = [("output", result.numpy().reshape(output.shape), output)]
    found += [(f"gradient of {n}", g.numpy(), w) for n, g, w in zip(names, gradients, pullback(r))]
    worst, wrong = 0.0, list[CheckFailed]()
    for what, actual, wanted in found:
        try:
            worst = max(worst, require_close(what, actual, wanted, allowed))
        except CheckFailed as failure:
            wrong.append(failure)
    if wrong:
        deviations = [failure.deviation for failure in wrong if failure.deviation is not None]
        raise CheckFailed("; ".join(map(str, wrong)), max(deviations, default=None))
    return off_by(worst)


def random(shape: Sequence[int], seed: int = 0) -> Array:
    """Standard normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def image(channels: int = CHANNELS, seed: int = 0) -> Array:
    return random((BATCH, channels, HEIGHT, WIDTH), seed)


def _dropout(channels: int, seed: int) -> Array:
    """Factors of channel dropout (B, C): a third of them 0, the others 1.5."""
    return np.where(np.random.default_rng(seed).random((BATCH, channels)) < 1 / 3, 0.0, 1.5)


def _with_parameters(layer: Any) -> Operator:
    """``layer`` as a function of its input, weight and bias."""

    def operator(x: Any, weight: Any, bias: Any = None) -> Any:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    return operator


def _constant(values: Array) -> Any:
    """In float32, without a gradient."""
    from cpanet.runtime import jt

    return jt.array(values.astype(np.float32)).stop_grad()


# ------------------------------------------------------ what is float32 at every precision


def float32_checks() -> Checks:
    """Checks of what is float32 at every precision."""
    from cpanet import losses
    from cpanet.models import dropout, layers
    from cpanet.runtime import jt

    found: Checks = {}

    def add(name: str, operator: Operator, expected: Expected, *inputs: Array) -> None:
        assert name not in found
        found[name] = partial(compare, operator, expected, *inputs)

    norm, mean, variance = _norm_inputs(), random((CHANNELS,), 3), 0.5 + random((CHANNELS,), 4) ** 2
    training, evaluated = layers.BatchNorm(CHANNELS), layers.BatchNorm(CHANNELS)
    training.train()
    evaluated.eval()
    evaluated.running_mean, evaluated.running_var = _constant(mean), _constant(variance)
    add("batch norm, training", _with_parameters(training), reference.batch_norm, *norm)
    found["batch norm, running statistics"] = batch_norm_running_statistics
    fixed = partial(reference.batch_norm, mean=mean, variance=variance)
    add("batch norm, evaluation", _with_parameters(evaluated), fixed, *norm)

    x = image()
    flat = x.reshape(BATCH, CHANNELS, -1)
    add("relu", lambda v: jt.nn.relu(v), reference.relu, x)
    add("sigmoid", lambda v: jt.sigmoid(v), reference.sigmoid, x)
    for name, k, stride, padding in (("2×2", 2, 2, 0), ("3×3 stride 2", 3, 2, 1)):
        pool = partial(reference.max_pool, kernel=k, stride=stride, padding=padding)
        add(f"max-pool {name}", jt.nn.Pool(k, stride, padding=padding, op="maximum"), pool, x)
    winner = partial(reference.max_pool, kernel=2, stride=2, padding=0)
    add("max-pool 2×2, one winner", lambda v: layers.max_pool_2x2(v), winner, x)
    add("global max-pool", lambda v: layers.first_maximum(v), partial(reference.maximum_over, axis=2), flat)
    add("global mean", lambda v: v.mean(dim=2), partial(reference.mean_over, axis=2), flat)
    both = lambda v: jt.concat([v.max(dim=1, keepdims=True), v.mean(dim=1, keepdims=True)], dim=1)  # noqa: E731
    add("channel maximum and mean", both, reference.maximum_and_mean, x)
    scores = 3 * random((BATCH, 12, 36))
    add("softmax", lambda v: jt.nn.softmax(v, dim=2), reference.softmax, scores)
    concat = lambda a, b: jt.concat([a, b], dim=1)  # noqa: E731
    add("channel concatenation", concat, reference.concatenate, image(3), image(5, 1))
    add("broadcast product", lambda a, b: a * b, reference.multiply, x, random((BATCH, CHANNELS, 1, 1), 1))
    factors = _dropout(CHANNELS, 2)
    scale = _constant(factors)
    dropped = lambda v: reference.chain(v, reference.relu, partial(reference.scale, factors=factors))  # noqa: E731
    add("relu with channel dropout", lambda v: dropout.relu_dropout(v, scale), dropped, x)
    target = (random((BATCH, HEIGHT, WIDTH), 1) > 0.5).astype(np.int64)
    target[:, :4] = 255
    labels = jt.array(target.astype(np.int32))
    wanted = partial(reference.cross_entropy, target=target)
    logits = 3 * random((BATCH, 2, HEIGHT, WIDTH))
    add("cross-entropy, label 255 ignored", lambda v: losses.CROSS_ENTROPY(v, labels), wanted, logits)
    return {**found, "SGD, momentum and weight decay": sgd}


def _norm_inputs() -> list[Array]:
    """Input with a mean and a spread of its own in each channel, weight, bias."""
    spread, offset = 0.5 + np.arange(CHANNELS) / 8, np.linspace(-3, 3, CHANNELS)
    x = (image() * spread[:, None, None] + offset[:, None, None]).astype(np.float32).astype(np.float64)
    return [x, 1 + random((CHANNELS,), 1) / 4, random((CHANNELS,), 2)]


def batch_norm_running_statistics() -> Seen:
    """Two training steps must move the statistics by a tenth of the way each, to known values."""
    from cpanet.models import layers
    from cpanet.runtime import jt

    layer = layers.BatchNorm(CHANNELS)
    layer.train()
    x = _norm_inputs()[0]
    count = x.size // CHANNELS
    mean, variance = np.zeros(CHANNELS), np.ones(CHANNELS)
    for step in (1, 2):
        layer(jt.array((x * step).astype(np.float32))).sync()
        mean += 0.1 * ((x * step).mean((0, 2, 3)) - mean)
        variance += 0.1 * ((x * step).var((0, 2, 3)) * count / (count - 1) - variance)
    found_mean, found_variance = layer.running_mean.numpy(), layer.running_var.numpy()
    if not found_mean.any() and (found_variance == 1).all():
        raise CheckFailed("running statistics are not updated in training mode")
    worst = require_close("running mean", found_mean, mean, EXACT)
    return off_by(max(worst, require_close("running variance", found_variance, variance, EXACT)))


def sgd() -> Seen:
    """Three steps on ``(parameter · g).sum()``, whose gradient is g whatever the parameter."""
    from cpanet.runtime import jt

    start, settings = random((40,)), {"momentum": 0.9, "weight_decay": 0.1}
    gradients = [random((40,), seed) for seed in (1, 2, 3)]
    parameter = jt.array(start.astype(np.float32))
    optimizer = jt.nn.SGD([parameter], 0.1, **settings)
    worst = 0.0
    for gradient, wanted in zip(gradients, reference.sgd(start, gradients, 0.1, **settings)):
        optimizer.step((parameter * jt.array(gradient.astype(np.float32))).sum())
        worst = max(worst, require_close("parameter after a step", parameter.numpy(), wanted, EXACT))
    return off_by(worst)


# ------------------------------------------------------ what is made of products


def product_checks(precision: str) -> Checks:
    """Checks of what is made of products, which may be off by what ``precision`` allows."""
    from cpanet import ops
    from cpanet.models import upsample
    from cpanet.models.dropout import scale_channels
    from cpanet.runtime import jt

    found: Checks = {}

    def add(name: str, operator: Operator, expected: Expected, *inputs: Array, **settings: Any) -> None:
        assert name not in found
        found[name] = partial(compare, operator, expected, *inputs, allowed=tolerance(precision), **settings)

    for name, k, stride, padding, dilation, channels, outputs in CONVOLUTIONS:
        for bias in (False, True):
            layer = ops.Conv(channels, outputs, k, stride, padding, dilation, bias=bias)
            arrays = [image(channels), random((outputs, channels, k, k), 1) / k]
            arrays += [random((outputs,), 2)] if bias else []
            expected = partial(reference.conv2d, stride=stride, padding=padding, dilation=dilation)
            title = f"convolution {name}, {'bias' if bias else 'no bias'}"
            add(title, _with_parameters(layer), expected, *arrays)
    for name, batch in (("matrix product", ()), ("batched matrix product", (3,))):
        pair = random((*batch, 20, 33)), random((*batch, 33, 17), 1)
        add(name, lambda a, b: jt.matmul(a, b), reference.matmul, *pair)

    small, size = random((BATCH, CHANNELS, 7, 5)), (24, 16)
    resized = partial(reference.resize_bilinear, size=size)
    add("bilinear enlargement", lambda v: upsample.upsample(v, size), resized, small)
    add(
        "convolution of an enlarged map",
        lambda v, w: upsample.conv_of_upsampled(v, w, size, padding=1),
        lambda v, w: reference.chain(v, resized, partial(reference.conv2d, weight=w, padding=1)),
        small,
        random((8, CHANNELS, 3, 3), 1) / 3,
    )

    # as the network has it: the input's channels dropped before, the result's after ReLU
    x, weight = image(), random((24, CHANNELS, 3, 3), 1) / 3
    before, after = _dropout(CHANNELS, 2), _dropout(24, 3)
    factors = [_constant(f) for f in (before, after)]
    drop_before, drop_after = (partial(reference.scale, factors=f) for f in (before, after))

    def linear(x: Array, weight: Array) -> reference.Reference:
        return reference.chain(x, drop_before, partial(reference.conv2d, weight=weight, padding=1))

    def clear() -> Array:
        """1 but next to zero, where a value may be cut to the other side, whose gradient is another."""
        size = np.abs(linear(x, weight)[0])
        return size > 0.05 * size.max()

    add(
        "convolution 3×3 with relu and channel dropout",
        lambda v, w: ops.conv3x3_relu(scale_channels(v, factors[0]), w, *factors),
        lambda v, w: reference.chain(v, partial(linear, weight=w), reference.relu, drop_after),
        x,
        weight,
        counted=clear,
    )
    vectors = random((BATCH, 3, CHANNELS), 1)
    add("projection to few channels", lambda *v: ops.project(*v), reference.project, x, vectors)
    add(
        "projection with channel maximum",
        lambda *v: ops.project_with_maximum(*v),
        reference.project_with_maximum,
        x,
        vectors,
        (0.5 + random((BATCH, CHANNELS), 2) ** 2).astype(np.float32).astype(np.float64),
    )
    add(
        "convolution 3×3 to few channels",
        lambda *v: ops.conv3x3_few(*v),
        partial(reference.conv2d, padding=1),
        x,
        random((2, CHANNELS, 3, 3), 1) / 3,
    )
    return found
