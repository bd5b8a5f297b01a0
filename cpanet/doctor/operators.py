"""Jittor against numpy, operator by operator, forward and gradient.

Where CPANet has an operator of its own (batch normalisation, resizing, the loss, those of ``cpanet.ops``) that one is
compared, else Jittor's. They are looked up when a check runs, so that a check sees what the network would see: on CUDA
``cpanet.ops`` is made of Jittor's operators, on the CPU it has kernels.

Convolutions and matrix products may be off by what the precision allows (:func:`cpanet.doctor.precision.tolerance`);
everything else is float32 at every precision.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np

from cpanet.doctor import reference
from cpanet.doctor.checks import Check, CheckFailed, Seen, off_by, require_close
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


def checks(remedy: str, precision: str = "fp32") -> list[Check]:
    """All operator checks at ``precision``; ``remedy`` is what to do about a wrong number on this device."""
    allowed = tolerance(precision)
    found = []
    for name, kernel, stride, padding, dilation, inputs, outputs in CONVOLUTIONS:
        for bias in (False, True):
            geometry = (kernel, stride, padding, dilation, inputs, outputs)
            title = f"convolution {name}, {'bias' if bias else 'no bias'}"
            found.append(Check(title, partial(convolution, *geometry, bias, allowed), remedy))
    named: dict[str, Callable[[], Seen]] = {**_without_products(), **_of_products(allowed)}
    return found + [Check(name, run, remedy) for name, run in named.items()]


def _without_products() -> dict[str, Callable[[], Seen]]:
    """Checks of what is float32 at every precision."""
    return {
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
        "channel concatenation": concatenation,
        "broadcast product": broadcast_product,
        "relu with channel dropout": relu_with_dropout,
        "cross-entropy, label 255 ignored": cross_entropy,
        "SGD, momentum and weight decay": sgd,
    }


def _of_products(allowed: float) -> dict[str, Callable[[], Seen]]:
    """Checks of what is made of products, which may be off by ``allowed``."""
    return {
        "matrix product": partial(matrix_product, (), allowed),
        "batched matrix product": partial(matrix_product, (3,), allowed),
        "bilinear enlargement": partial(enlargement, allowed),
        "convolution of an enlarged map": partial(convolution_of_enlarged, allowed),
        "convolution 3×3 with relu and channel dropout": partial(convolution_with_dropout, allowed),
        "projection to few channels": partial(projection, allowed),
        "projection with channel maximum": partial(projection_with_maximum, allowed),
        "convolution 3×3 to few channels": partial(convolution_to_few, allowed),
    }


def compare(
    operator: Operator,
    expected: reference.Reference,
    inputs: list[np.ndarray],
    allowed: float = EXACT,
    cotangent: np.ndarray | None = None,
) -> Seen:
    """Output and every gradient of ``operator(*inputs)`` against the reference, each off by ``allowed`` at most.

    Gradients are those of ``(output · cotangent).sum()``, by default with a random one.
    """
    from cpanet.runtime import jt

    output, pullback = expected
    variables = [jt.array(x.astype(np.float32)) for x in inputs]
    result = operator(*variables)
    r = random(output.shape, seed=99) if cotangent is None else cotangent
    gradients = jt.grad((result * jt.array(r.astype(np.float32)).reshape(result.shape)).sum(), variables)
    names = ("input", "weight", "bias") if len(inputs) > 1 else ("input",)
    found = [("output", result.numpy().reshape(output.shape), output)]
    found += [(f"gradient of {n}", g.numpy(), w) for n, g, w in zip(names, gradients, pullback(r))]
    return _all_close(found, allowed)


def _all_close(found: list[tuple[str, np.ndarray, np.ndarray]], allowed: float) -> Seen:
    """Names, values and what is expected; CheckFailed names everything that is wrong."""
    worst, wrong = [], []
    for what, actual, wanted in found:
        try:
            worst.append(require_close(what, actual, wanted, allowed))
        except CheckFailed as failure:
            wrong.append(failure)
    if wrong:
        deviations = [failure.deviation for failure in wrong if failure.deviation is not None]
        raise CheckFailed("; ".join(map(str, wrong)), max(deviations, default=None))
    return off_by(max(worst))


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def image(channels: int = CHANNELS, seed: int = 0) -> np.ndarray:
    return random((BATCH, channels, HEIGHT, WIDTH), seed)


# ------------------------------------------------------ the operators, in the order of the list above


def convolution(
    k: int, stride: int, padding: int, dilation: int, inputs: int, outputs: int, bias: bool, allowed: float
) -> Seen:
    from cpanet.ops import Conv

    layer = Conv(inputs, outputs, k, stride, padding, dilation, bias=bias)
    arrays = [image(inputs), random((outputs, inputs, k, k), 1) / k]
    if bias:
        arrays.append(random((outputs,), 2))

    def operator(x: Any, weight: Any, bias: Any = None) -> Any:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return compare(operator, reference.conv2d(*arrays, **settings), arrays, allowed)  # type: ignore[arg-type]


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


def batch_norm_training() -> Seen:
    layer, inputs = _norm_layer(), _norm_inputs()
    layer.train()
    return compare(_norm_operator(layer), reference.batch_norm_training(*inputs), inputs)


def batch_norm_running_statistics() -> Seen:
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
    worst = require_close("running mean", found_mean, mean, EXACT)
    worst = max(worst, require_close("running variance", found_variance, variance, EXACT))
    return off_by(worst)


def batch_norm_evaluation() -> Seen:
    from cpanet.runtime import jt

    layer, inputs = _norm_layer(), _norm_inputs()
    layer.eval()
    mean, variance = random((CHANNELS,), 3), 0.5 + random((CHANNELS,), 4) ** 2
    layer.running_mean = jt.array(mean.astype(np.float32)).stop_grad()
    layer.running_var = jt.array(variance.astype(np.float32)).stop_grad()
    x, weight, bias = inputs
    wanted = reference.batch_norm_evaluation(x, weight, bias, mean, variance)
    return compare(_norm_operator(layer), wanted, inputs)


def relu() -> Seen:
    from cpanet.runtime import jt

    return compare(jt.nn.relu, reference.relu(image()), [image()])


def sigmoid() -> Seen:
    from cpanet.runtime import jt

    return compare(jt.sigmoid, reference.sigmoid(image()), [image()])


def max_pool(kernel: int, stride: int, padding: int) -> Seen:
    from cpanet.runtime import jt

    layer = jt.nn.Pool(kernel, stride, padding=padding, op="maximum")
    return compare(layer, reference.max_pool(image(), kernel, stride, padding), [image()])


def max_pool_one_winner() -> Seen:
    from cpanet.models import numerics

    return compare(numerics.max_pool_2x2, reference.max_pool(image(), 2, 2, 0), [image()])


def global_max_pool() -> Seen:
    from cpanet.models import numerics

    x = image().reshape(BATCH, CHANNELS, -1)
    return compare(numerics.first_maximum, reference.maximum_over(x, 2), [x])


def global_mean() -> Seen:
    x = image().reshape(BATCH, CHANNELS, -1)
    return compare(lambda v: v.mean(dim=2), reference.mean_over(x, 2), [x])


def channel_maximum_and_mean() -> Seen:
    x = image()
    compare(lambda v: v.max(dim=1), reference.maximum_over(x, 1), [x])
    return compare(lambda v: v.mean(dim=1), reference.mean_over(x, 1), [x])


def softmax() -> Seen:
    from cpanet.runtime import jt

    x = 3 * random((BATCH, 12, 36))
    return compare(lambda v: jt.nn.softmax(v, dim=2), reference.softmax(x), [x])


def matrix_product(batch: tuple[int, ...], allowed: float) -> Seen:
    from cpanet.runtime import jt

    inputs = [random((*batch, 20, 33)), random((*batch, 33, 17), 1)]
    return compare(jt.matmul, reference.matmul(*inputs), inputs, allowed)


def enlargement(allowed: float) -> Seen:
    from cpanet.models import resample

    x, size = random((BATCH, CHANNELS, 7, 5)), (24, 16)
    return compare(lambda v: resample.enlarge(v, size), reference.resize_bilinear(x, size), [x], allowed)


def convolution_of_enlarged(allowed: float) -> Seen:
    from cpanet.models import resample

    x, weight, size = random((BATCH, CHANNELS, 7, 5)), random((8, CHANNELS, 3, 3), 1) / 3, (24, 16)
    large, resize_pullback = reference.resize_bilinear(x, size)
    output, conv_pullback = reference.conv2d(large, weight, padding=1)

    def pullback(r: np.ndarray) -> tuple[np.ndarray, ...]:
        g_large, g_weight = conv_pullback(r)
        return (*resize_pullback(g_large), g_weight)

    def operator(v: Any, w: Any) -> Any:
        return resample.conv_of_enlarged(v, w, size, padding=1)

    return compare(operator, (output, pullback), [x, weight], allowed)


def _dropout(channels: int, seed: int) -> np.ndarray:
    """Factors of channel dropout (B, C): a third of them 0, the others 1.5."""
    return np.where(np.random.default_rng(seed).random((BATCH, channels)) < 1 / 3, 0.0, 1.5)


def convolution_with_dropout(allowed: float) -> Seen:
    """As the network has it: the input's channels dropped before, the result's after ReLU."""
    from cpanet import ops
    from cpanet.models.dropout import scale_channels
    from cpanet.runtime import jt

    x, weight = image(), random((24, CHANNELS, 3, 3), 1) / 3
    before, after = _dropout(CHANNELS, 2), _dropout(24, 3)
    dropped, drop_pullback = reference.multiply(x, before[:, :, None, None])
    linear, conv_pullback = reference.conv2d(dropped, weight, padding=1)
    output = np.maximum(linear, 0) * after[:, :, None, None]

    def pullback(r: np.ndarray) -> tuple[np.ndarray, ...]:
        g_dropped, g_weight = conv_pullback(r * (linear > 0) * after[:, :, None, None])
        return drop_pullback(g_dropped)[0], g_weight

    def operator(v: Any, w: Any) -> Any:
        factors = [jt.array(f.astype(np.float32)).stop_grad() for f in (before, after)]
        return ops.conv3x3_relu(scale_channels(v, factors[0]), w, *factors)

    # a value next to zero may be cut to the other side of it, where the gradient is another
    clear = np.abs(linear) > 0.05 * np.abs(linear).max()
    return compare(operator, (output, pullback), [x, weight], allowed, random(output.shape, 99) * clear)


def relu_with_dropout() -> Seen:
    from cpanet.models import dropout
    from cpanet.runtime import jt

    x, factors = image(), _dropout(CHANNELS, 2)[:, :, None, None]
    wanted = np.maximum(x, 0) * factors, lambda r: (r * (x > 0) * factors,)
    scale = jt.array(factors[:, :, 0, 0].astype(np.float32)).stop_grad()
    return compare(lambda v: dropout.relu_dropout(v, scale), wanted, [x])


def _projection(x: np.ndarray, weight: np.ndarray) -> reference.Reference:
    """Σ_c weight[b, k, c] · x[b, c]: (B, C, H, W), (B, K, C) → (B, K, H, W)."""
    output, inner = reference.matmul(weight, x.reshape(*x.shape[:2], -1))

    def pullback(r: np.ndarray) -> tuple[np.ndarray, ...]:
        g_weight, g_x = inner(r.reshape(*r.shape[:2], -1))
        return g_x.reshape(x.shape), g_weight

    return output.reshape(*output.shape[:2], *x.shape[2:]), pullback


def projection(allowed: float) -> Seen:
    from cpanet import ops

    inputs = [image(), random((BATCH, 3, CHANNELS), 1)]
    return compare(ops.project, _projection(*inputs), inputs, allowed)


def projection_with_maximum(allowed: float) -> Seen:
    from cpanet import ops

    x, weight, scale = image(), random((BATCH, 3, CHANNELS), 1), 0.5 + random((BATCH, CHANNELS), 2) ** 2
    scale = scale.astype(np.float32).astype(np.float64)
    projected, of_projected = _projection(x, weight)
    scaled, of_scaled = reference.multiply(x, scale[:, :, None, None])
    largest, of_largest = reference.maximum_over(scaled, 1)
    output = np.concatenate([projected, largest[:, None]], 1)

    def pullback(r: np.ndarray) -> tuple[np.ndarray, ...]:
        (g_x, g_weight), (g_scaled,) = of_projected(r[:, :3]), of_largest(r[:, 3])
        also, g_scale = of_scaled(g_scaled)
        return g_x + also, g_weight, g_scale[:, :, 0, 0]

    return compare(ops.project_with_maximum, (output, pullback), [x, weight, scale], allowed)


def convolution_to_few(allowed: float) -> Seen:
    from cpanet import ops

    x, weight = image(), random((2, CHANNELS, 3, 3), 1) / 3
    return compare(ops.conv3x3_few, reference.conv2d(x, weight, padding=1), [x, weight], allowed)


def concatenation() -> Seen:
    from cpanet.runtime import jt

    inputs = [image(3), image(5, 1)]
    return compare(lambda a, b: jt.concat([a, b], dim=1), reference.concatenate(*inputs), inputs)


def broadcast_product() -> Seen:
    inputs = [image(), random((BATCH, CHANNELS, 1, 1), 1)]
    return compare(lambda a, b: a * b, reference.multiply(*inputs), inputs)


def cross_entropy() -> Seen:
    from cpanet import losses
    from cpanet.runtime import jt

    logits = 3 * random((BATCH, 2, HEIGHT, WIDTH))
    target = (random((BATCH, HEIGHT, WIDTH), 1) > 0.5).astype(np.int64)
    target[:, :4] = 255
    labels = jt.array(target.astype(np.int32))
    wanted = reference.cross_entropy(logits, target)
    return compare(lambda v: losses.cross_entropy(v, labels), wanted, [logits])


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
