"""Every operator that CPANet uses, in numpy and float64: forward pass and vector-Jacobian product.

``operator(*inputs)`` returns ``(output, pullback)``; ``pullback(r)`` returns, for each input, the gradient of
``(output · r).sum()``. Arrays are (batch, channels, height, width) unless noted. The tests check every
pullback against central differences of the forward pass.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

Array = np.ndarray
Pullback = Callable[[Array], tuple[Array, ...]]
EPS = 1e-5  # added to the variance by batch normalisation
Reference = tuple[Array, Pullback]


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Reference:
    """Convolution as a sum over the taps of the kernel; weight (out, in, k, k), bias (out,) or None."""
    windows = _windows(x, weight.shape[2], stride, padding, dilation)
    padded = np.pad(x, _edges(padding))
    y = sum(_einsum("bihw,oi->bohw", padded[w], weight[:, :, dy, dx]) for (dy, dx), w in windows.items())
    if bias is not None:
        y = y + bias[:, None, None]

    def pullback(r: Array) -> tuple[Array, ...]:
        gx, gw = np.zeros_like(padded), np.zeros_like(weight)
        for (dy, dx), window in windows.items():
            gx[window] += _einsum("bohw,oi->bihw", r, weight[:, :, dy, dx])
            gw[:, :, dy, dx] = _einsum("bohw,bihw->oi", r, padded[window])
        inner = _without_edges(gx, padding)
        return (inner, gw) if bias is None else (inner, gw, r.sum((0, 2, 3)))

    return np.asarray(y), pullback


def _windows(x: Array, k: int, stride: int, padding: int, dilation: int = 1) -> dict[tuple[int, int], Any]:
    """For each tap (row, column) of a k×k kernel, the pixels of the padded map that it reads."""
    height, width = ((n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n in x.shape[2:])

    def reach(tap: int, count: int) -> slice:
        return slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)

    return {(dy, dx): (..., reach(dy, height), reach(dx, width)) for dy in range(k) for dx in range(k)}


def _edges(padding: int) -> list[tuple[int, int]]:
    return [(0, 0), (0, 0), (padding, padding), (padding, padding)]


def _without_edges(x: Array, padding: int) -> Array:
    return x[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]


def _einsum(indices: str, a: Array, b: Array) -> Array:
    """By BLAS, which it takes for hundreds of channels."""
    return np.einsum(indices, a, b, optimize=True)


def batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array | None = None, variance: Array | None = None
) -> Reference:
    """Batch normalisation, all but x (C,): with given statistics, which get no gradient, or those of the batch itself."""
    axes = (0, 2, 3)
    of_batch = mean is None
    mean, variance = (x.mean(axes), x.var(axes)) if mean is None or variance is None else (mean, variance)
    root = np.sqrt(variance + EPS)[:, None, None]
    normal = (x - mean[:, None, None]) / root
    gain = weight[:, None, None]

    def pullback(r: Array) -> tuple[Array, ...]:
        g = r * gain
        if of_batch:
            g = g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True)
        return g / root, (r * normal).sum(axes), r.sum(axes)

    return normal * gain + bias[:, None, None], pullback


def relu(x: Array) -> Reference:
    return np.maximum(x, 0), lambda r: (r * (x > 0),)


def scale(x: Array, factors: Array) -> Reference:
    """x times factors (B, C) that get no gradient."""
    return x * factors[:, :, None, None], lambda r: (r * factors[:, :, None, None],)


def sigmoid(x: Array) -> Reference:
    y = 1 / (1 + np.exp(-x))
    return y, lambda r: (r * y * (1 - y),)


def softmax(x: Array) -> Reference:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    return y, lambda r: (y * (r - (r * y).sum(-1, keepdims=True)),)


def matmul(a: Array, b: Array) -> Reference:
    """(…, n, k) · (…, k, m), with equal leading axes."""
    return a @ b, lambda r: (r @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ r)


def max_pool(x: Array, kernel: int, stride: int, padding: int) -> Reference:
    """The maximum of each window; the gradient goes to where it is (no ties in continuous input)."""
    padded = np.pad(x, _edges(padding), constant_values=-np.inf)
    windows = list(_windows(x, kernel, stride, padding).values())
    stack = np.stack([padded[window] for window in windows])
    winner = stack.argmax(0)

    def pullback(r: Array) -> tuple[Array, ...]:
        gx = np.zeros_like(padded)
        for index, window in enumerate(windows):
            gx[window] += r * (winner == index)
        return (_without_edges(gx, padding),)

    return stack.max(0), pullback


def maximum_over(x: Array, axis: int) -> Reference:
    """The maximum along one axis, which is dropped."""
    winner = np.expand_dims(x.argmax(axis), axis)

    def pullback(r: Array) -> tuple[Array, ...]:
        gx = np.zeros_like(x)
        np.put_along_axis(gx, winner, np.expand_dims(r, axis), axis)
        return (gx,)

    return x.max(axis), pullback


def mean_over(x: Array, axis: int) -> Reference:
    """The mean along one axis, which is dropped."""
    count = x.shape[axis]
    return x.mean(axis), lambda r: (np.repeat(np.expand_dims(r, axis), count, axis) / count,)


def maximum_and_mean(x: Array) -> Reference:
    """Maximum and mean over the channels, (B, 2, H, W)."""
    (largest, of_largest), (mean, of_mean) = maximum_over(x, 1), mean_over(x, 1)
    return np.stack([largest, mean], 1), lambda r: (of_largest(r[:, 0])[0] + of_mean(r[:, 1])[0],)


def project(x: Array, weight: Array) -> Reference:
    """Σ_c weight[b, k, c] · x[b, c]: (B, C, H, W), (B, K, C) → (B, K, H, W)."""

    def pullback(r: Array) -> tuple[Array, ...]:
        return _einsum("bkhw,bkc->bchw", r, weight), _einsum("bkhw,bchw->bkc", r, x)

    return _einsum("bkc,bchw->bkhw", weight, x), pullback


def project_with_maximum(x: Array, weight: Array, scale: Array) -> Reference:
    """:func:`project` to K channels, and the maximum over channels of x · scale (B, C) as one more."""
    (projected, of_projected), (scaled, of_scaled) = project(x, weight), multiply(x, scale[:, :, None, None])
    largest, of_largest = maximum_over(scaled, 1)

    def pullback(r: Array) -> tuple[Array, ...]:
        (g_x, g_weight), (g_scaled,) = of_projected(r[:, :-1]), of_largest(r[:, -1])
        also, g_scale = of_scaled(g_scaled)
        return g_x + also, g_weight, g_scale[:, :, 0, 0]

    return np.concatenate([projected, largest[:, None]], 1), pullback


def chain(x: Array, *steps: Callable[[Array], Reference]) -> Reference:
    """One step after the other; gradients are those of x, then of what the steps have besides their input."""
    pullbacks = []
    for step in steps:
        x, pullback = step(x)
        pullbacks.append(pullback)

    def of_all(r: Array) -> tuple[Array, ...]:
        others: list[Array] = []
        for pullback in reversed(pullbacks):
            r, *of_others = pullback(r)
            others = [*of_others, *others]
        return (r, *others)

    return x, of_all


def concatenate(a: Array, b: Array) -> Reference:
    """Along the channels."""
    split = a.shape[1]
    return np.concatenate([a, b], 1), lambda r: (r[:, :split], r[:, split:])


def multiply(x: Array, factor: Array) -> Reference:
    """x times a factor that has size 1 along some axes."""
    axes = tuple(i for i, n in enumerate(factor.shape) if n == 1)
    return x * factor, lambda r: (r * factor, (r * x).sum(axes, keepdims=True))


def resize_bilinear(x: Array, size: tuple[int, int]) -> Reference:
    """Bilinear resize with ``align_corners=True``: each output pixel is a mean of its four neighbours."""
    rows, columns = (_interpolation(n_in, n_out) for n_in, n_out in zip(x.shape[2:], size))
    return rows @ x @ columns.T, lambda r: (rows.T @ r @ columns,)


def _interpolation(n_in: int, n_out: int) -> Array:
    """(n_out, n_in): the weight of every input position at every output position, falling to 0 at a distance of 1."""
    distance = np.abs(np.linspace(0, n_in - 1, n_out)[:, None] - np.arange(n_in))
    return np.maximum(1 - distance, 0)


def cross_entropy(logits: Array, target: Array, ignore: int = 255) -> Reference:
    """Mean over the pixels whose label is not ``ignore``; logits (B, C, H, W), target (B, H, W)."""
    probability, _ = softmax(np.moveaxis(logits, 1, -1))
    valid = target != ignore
    onehot = np.eye(logits.shape[1])[np.where(valid, target, 0)]
    count = valid.sum()
    loss = -(np.log((probability * onehot).sum(-1)) * valid).sum() / count

    def pullback(r: Array) -> tuple[Array, ...]:
        return (np.moveaxis((probability - onehot) * valid[..., None], -1, 1) * (r / count),)

    return np.asarray(loss), pullback


def sgd(
    parameter: Array, gradients: list[Array], lr: float, momentum: float, weight_decay: float
) -> list[Array]:
    """The parameter after each of some steps of SGD with momentum and weight decay (as in PyTorch)."""
    velocity, steps = np.zeros_like(parameter), []
    for gradient in gradients:
        velocity = momentum * velocity + gradient + weight_decay * parameter
        parameter = parameter - lr * velocity
        steps.append(parameter)
    return steps
