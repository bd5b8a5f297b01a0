"""Channel dropout whose masks are drawn on the host, from the seed and the iteration alone.

A run can then be resumed at any iteration without saving a generator's state, two devices drop the same channels, and
whoever computes a convolution knows on the host which channels need not be computed.
"""

from __future__ import annotations

import numpy as np

from cpanet.runtime import jt


class DropoutSource:
    """The masks of one training step; every :class:`ChannelDropout` of a model draws from the same source."""

    def __init__(self, seed: int = 0) -> None:
        self.reseed(seed, 0)

    def reseed(self, seed: int, iteration: int) -> None:
        """Start the masks of ``iteration``: the same two numbers always give the same masks."""
        self._rng = np.random.default_rng([seed, iteration, 0xD0])

    def mask(self, batch: int, channels: int, p: float) -> np.ndarray:
        """(batch, channels) float32: 0 where a channel is dropped, 1/(1−p) elsewhere."""
        kept = self._rng.random((batch, channels)) >= p
        return (kept / (1.0 - p)).astype(np.float32)


class ChannelDropout(jt.nn.Module):
    """Zero whole channels with probability ``p`` in training, as PyTorch's ``Dropout2d``; the identity otherwise."""

    def __init__(self, p: float, source: DropoutSource) -> None:
        self.p = p
        self._source = source

    def factors(self, batch: int, channels: int):
        """What the channels are multiplied by, (B, C): 0 or 1/(1−p); None where nothing is dropped."""
        if not self.is_train or self.p == 0:
            return None
        return jt.array(self._source.mask(batch, channels, self.p)).stop_grad()

    def execute(self, x):
        """x (B, C, H, W) → the same shape."""
        return scale_channels(x, self.factors(*x.shape[:2]))


def relu_dropout(x, factors):
    """relu(x) times the channels' factors (or None): x (B, C, H, W). Backward needs the result alone, so x is not kept."""
    return _ReluDropout.apply(x, factors)


class _ReluDropout(jt.Function):
    def execute(self, x, factors):
        self.factors, self.y = factors, scale_channels(jt.nn.relu(x), factors)
        return self.y

    def grad(self, dy):
        dy = scale_channels(dy, self.factors)
        return jt.ternary(self.y > 0, dy, jt.zeros_like(dy)), None


def scale_channels(x, factors):
    """x (B, C, H, W) times factors (B, C), or x where they are None."""
    return x if factors is None else x * factors.reshape(*factors.shape, 1, 1)
