"""Jittor against numpy, operator by operator, forward and gradient.

Where CPANet has an operator of its own (batch normalisation, resizing, the loss) that one is compared, else
Jittor's. They are looked up when a check runs, so that a check sees what the network would see.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np

from cpanet.doctor import reference
from cpanet.doctor.checks import Check, CheckFailed, require_close

TOLERANCE = 1e-4  # of the largest value; float32 sums of some thousand products stay below 1e-5
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
)

Operator = Callable[..., Any]


def checks(remedy: str) -> list[Check]:
    """All operator checks; ``remedy`` is what to do about a wrong number on this device."""
    found = []
    for name, kernel, stride, padding, dilation, inputs, outputs in CONVOLUTIONS:
        for bias in (False, True):
            geometry = (kernel, stride, padding, dilation, inputs, outputs)
            title = f"convolution {name}, {'bias' if bias else 'no bias'}"
            found.append(Check(title, partial(convolution, *geometry, bias), remedy))
    named: dict[str, Callable[[], str]] = {
        "batch norm, training": batch_norm_training,
        "batch norm, running statistics": batch_norm_running_statistics,
        "batch norm, evaluation": batch_norm_evaluation,
        "relu": relu,
        "sigmoid": sigmoid,
        "max-pool 2×2": partial(max_pool, 2, 2, 0),
        "max-pool 3×3 stride 2": partial(max_pool, 3, 2, 1),
        "max-pool 2×2, one winner": max_pool_one_winner,
        "global max-pool": global_max_pool,
        "global mean": global_mean,
        "channel maximum and mean": channel_maximum_and_mean,
        "softmax": softmax,
        "matrix product": partial(matrix_product, ()),
        "batched matrix product": partial(matrix_product, (3,)),
        "bilinear enlargement": enlargement,
        "convolution of an enlarged map": convolution_of_enlarged,
        "channel concatenation": concatenation,
        "broadcast product": broadcast_product,
        "cross-entropy, label 255 ignored": cross_entropy,
        "SGD, momentum and weight decay": sgd,
    }
    return found + [Check(name, run, remedy) for name, run in named.items()]


def compare(operator: Operator, expected: reference.Reference, inputs: list[np.ndarray]) -> str:
    """Output and every gradient of ``operator(*inputs)`` against the reference; one line on the deviation."""
    from cpanet.runtime import jt

    output, pullback = expected
    variables = [jt.array(x.astype(np.float32)) for x in inputs]
    result = operator(*variables)
    worst = require_close("output", result.numpy().reshape(output.shape), output, TOLERANCE)
    r = random(output.shape, seed=99)
    gradients = jt.grad((result * jt.array(r.astype(np.float32)).reshape(result.shape)).sum(), variables)
    names = ("input", "weight", "bias") if len(inputs) > 1 else ("input",)
    for name, gradient, wanted in zip(names, gradients, pullback(r)):
        worst = max(worst, require_close(f"gradient of {name}", gradient.numpy(), wanted, TOLERANCE))
    return f"deviation {worst:.0e}"


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def image(channels: int = CHANNELS, seed: int = 0) -> np.ndarray:
    return random((BATCH, channels, HEIGHT, WIDTH), seed)


# ------------------------------------------------------ the operators, in the order of the list above


def convolution(
    k: int, stride: int, padding: int, dilation: int, inputs: int, outputs: int, bias: bool
) -> str:
    from cpanet.ops import Conv

    layer = Conv(inputs, outputs, k, stride, padding, dilation, bias=bias)
    arrays = [image(inputs), random((outputs, inputs, k, k), 1) / k]
    if bias:
        arrays.append(random((outputs,), 2))

    def operator(x: Any, weight: Any, bias: Any = None) -> Any:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return compare(operator, reference.conv2d(*arrays, **settings), arrays)  # type: ignore[arg-type]


def _norm_inputs() -> list[np.ndarray]:
    """Input with a mean and a spread of its own in each channel, weight, bias."""
    spread, offset = 0.5 + np.arange(CHANNELS) / 8, np.linspace(-3, 3, CHANNELS)
    x = (image() * spread[:, None, None] + offset[:, None, None]).astype(np.float32).astype(np.float64)
    return [x, 1 + random((CHANNELS,), 1) / 4, random((CHANNELS,), 2)]


def _norm_layer() -> Any:
    from cpanet.models import numerics

    return numerics.BatchNorm(CHANNELS)


def _norm_operator(layer: Any) -> Operator:
    def operator(x: Any, weight: Any, bias: Any) -> Any:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    return operator


def batch_norm_training() -> str:
    layer, inputs = _norm_layer(), _norm_inputs()
    layer.train()
    return compare(_norm_operator(layer), reference.batch_norm_training(*inputs), inputs)


def batch_norm_running_statistics() -> str:
    """Two training steps must move the statistics by a tenth of the way each, to known values."""
    from cpanet.runtime import jt

    layer = _norm_layer()
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
    worst = require_close("running mean", found_mean, mean, TOLERANCE)
    worst = max(worst, require_close("running variance", found_variance, variance, TOLERANCE))
    return f"deviation {worst:.0e}"


def batch_norm_evaluation() -> str:
    from cpanet.runtime import jt

    layer, inputs = _norm_layer(), _norm_inputs()
    layer.eval()
    mean, variance = random((CHANNELS,), 3), 0.5 + random((CHANNELS,), 4) ** 2
    layer.running_mean = jt.array(mean.astype(np.float32)).stop_grad()
    layer.running_var = jt.array(variance.astype(np.float32)).stop_grad()
    x, weight, bias = inputs
    wanted = reference.batch_norm_evaluation(x, weight, bias, mean, variance)
    return compare(_norm_operator(layer), wanted, inputs)


def relu() -> str:
    from cpanet.runtime import jt

    return compare(jt.nn.relu, reference.relu(image()), [image()])


def sigmoid() -> str:
    from cpanet.runtime import jt

    return compare(jt.sigmoid, reference.sigmoid(image()), [image()])


def max_pool(kernel: int, stride: int, padding: int) -> str:
    from cpanet.runtime import jt

    layer = jt.nn.Pool(kernel, stride, padding=padding, op="maximum")
    return compare(layer, reference.max_pool(image(), kernel, stride, padding), [image()])


def max_pool_one_winner() -> str:
    from cpanet.models import numerics

    return compare(numerics.max_pool_2x2, reference.max_pool(image(), 2, 2, 0), [image()])


def global_max_pool() -> str:
    from cpanet.models import numerics

    x = image().reshape(BATCH, CHANNELS, -1)
    return compare(numerics.first_maximum, reference.maximum_over(x, 2), [x])


def global_mean() -> str:
    x = image().reshape(BATCH, CHANNELS, -1)
    return compare(lambda v: v.mean(dim=2), reference.mean_over(x, 2), [x])


def channel_maximum_and_mean() -> str:
    x = image()
    compare(lambda v: v.max(dim=1), reference.maximum_over(x, 1), [x])
    return compare(lambda v: v.mean(dim=1), reference.mean_over(x, 1), [x])


def softmax() -> str:
    from cpanet.runtime import jt

    x = 3 * random((BATCH, 12, 36))
    return compare(lambda v: jt.nn.softmax(v, dim=2), reference.softmax(x), [x])


def matrix_product(batch: tuple[int, ...]) -> str:
    from cpanet.runtime import jt

    inputs = [random((*batch, 20, 33)), random((*batch, 33, 17), 1)]
    return compare(jt.matmul, reference.matmul(*inputs), inputs)


def enlargement() -> str:
    from cpanet.models import resample

    x, size = random((BATCH, CHANNELS, 7, 5)), (24, 16)
    return compare(lambda v: resample.enlarge(v, size), reference.resize_bilinear(x, size), [x])


def convolution_of_enlarged() -> str:
    from cpanet.models import resample

    x, weight, size = random((BATCH, CHANNELS, 7, 5)), random((8, CHANNELS, 3, 3), 1) / 3, (24, 16)
    large, resize_pullback = reference.resize_bilinear(x, size)
    output, conv_pullback = reference.conv2d(large, weight, padding=1)

    def pullback(r: np.ndarray) -> tuple[np.ndarray, ...]:
        g_large, g_weight = conv_pullback(r)
        return (*resize_pullback(g_large), g_weight)

    def operator(v: Any, w: Any) -> Any:
        return resample.conv_of_enlarged(v, w, size, padding=1)

    return compare(operator, (output, pullback), [x, weight])


def concatenation() -> str:
    from cpanet.runtime import jt

    inputs = [image(3), image(5, 1)]
    return compare(lambda a, b: jt.concat([a, b], dim=1), reference.concatenate(*inputs), inputs)


def broadcast_product() -> str:
    inputs = [image(), random((BATCH, CHANNELS, 1, 1), 1)]
    return compare(lambda a, b: a * b, reference.multiply(*inputs), inputs)


def cross_entropy() -> str:
    from cpanet import losses
    from cpanet.runtime import jt

    logits = 3 * random((BATCH, 2, HEIGHT, WIDTH))
    target = (random((BATCH, HEIGHT, WIDTH), 1) > 0.5).astype(np.int64)
    target[:, :4] = 255
    labels = jt.array(target.astype(np.int32))
    wanted = reference.cross_entropy(logits, target)
    return compare(lambda v: losses.cross_entropy(v, labels), wanted, [logits])


def sgd() -> str:
    """Three steps on ``(parameter · g).sum()``, whose gradient is g whatever the parameter."""
    from cpanet.runtime import jt

    start, settings = random((40,)), {"momentum": 0.9, "weight_decay": 0.1}
    gradients = [random((40,), seed) for seed in (1, 2, 3)]
    parameter = jt.array(start.astype(np.float32))
    optimizer = jt.nn.SGD([parameter], 0.1, **settings)
    worst = 0.0
    for gradient, wanted in zip(gradients, reference.sgd(start, gradients, 0.1, **settings)):
        optimizer.step((parameter * jt.array(gradient.astype(np.float32))).sum())
        worst = max(worst, require_close("parameter after a step", parameter.numpy(), wanted, TOLERANCE))
    return f"deviation {worst:.0e}"
