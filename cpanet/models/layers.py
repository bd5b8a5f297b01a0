"""Operators that Jittor has, but with another gradient or less precision than CPANet needs."""

from __future__ import annotations

from cpanet.ops.function import Function
from cpanet.runtime import jt

nn = jt.nn


def first_maximum(x):
    """Maximum over the last axis, its gradient handed to the first position that attains it: (…, N) → (…).

    Jittor's ``max`` and its max-pooling hand the whole gradient to *every* position that ties. In CPP all positions
    outside the mask hold the same value (their feature is zero), so a tie multiplies the gradient by their number;
    PyTorch, and so the released code, picks one. Not by ``jt.argmax``: on CUDA that needs CUB, and goes through host memory
    where CUB is missing.
    """
    return _FirstMaximum.apply(x)


class _FirstMaximum(Function):
    def execute(self, x):
        largest = x.max(dim=-1, keepdims=True)
        places = jt.index(x.shape, len(x.shape) - 1)
        nowhere = jt.full_like(places, x.shape[-1])
        self.keep(jt.ternary(x >= largest, places, nowhere).min(dim=-1, keepdims=True), x.shape)
        return largest.reshape(x.shape[:-1])

    def grad(self, dy):
        first, shape = self.release()
        dy = dy.unsqueeze(-1).broadcast(shape)
        places = jt.index(shape, len(shape) - 1)
        return jt.ternary(places == first.broadcast(shape), dy, jt.zeros_like(dy))


def max_pool_2x2(x):
    """2×2 max-pool, stride 2, an odd last row or column left out, one winner a window: (B, C, H, W) → (B, C, H//2, W//2)."""
    batch, channels, height, width = x.shape
    h, w = height // 2, width // 2
    windows = x[:, :, : 2 * h, : 2 * w].reshape(batch, channels, h, 2, w, 2).permute(0, 1, 2, 4, 3, 5)
    return first_maximum(windows.reshape(batch, channels, h, w, 4))


class BatchNorm(jt.nn.BatchNorm):
    """BatchNorm over (B, C, H, W) with the variance taken about the mean in a second pass.

    Jittor's own takes E[x²] − E[x]², which in float32 loses the variance of a channel whose mean is large. The running
    variance is the unbiased one, as PyTorch keeps it.
    """

    def execute(self, x):
        """(B, C, H, W) → the same shape; in training mode the running statistics are updated."""
        if not self.is_train:
            return super().execute(x)
        dims = [0, 2, 3]
        mean = x.mean(dims=dims, keepdims=True)
        centred = x - mean
        variance = (centred * centred).mean(dims=dims, keepdims=True)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        unbiased = variance * (count / max(count - 1, 1))
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.update(running + (now.reshape(-1).stop_grad() - running) * self.momentum)
        scale = self.weight.reshape(1, -1, 1, 1) / jt.sqrt(variance + self.eps)
        return centred * scale + self.bias.reshape(1, -1, 1, 1)
