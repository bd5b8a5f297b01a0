"""Channel dropout whose masks are drawn on the host, from the seed and the iteration alone.

A run can then be resumed at any iteration without saving a generator's state, two devices drop the same channels, and
whoever computes a convolution knows on the host which channels need not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cpanet.runtime import jt

Request = tuple[int, int, float]  # batch, channels, p


class DropoutSource:
    """The masks of one training step; every :class:`ChannelDropout` of a model draws from the same source.

    All masks of a step go to the device in one copy, as soon as a step before has shown which these are. On CUDA each copy
    costs several calls of the driver, and Jittor frees it by a function of the host that the device waits for.
    """

    def __init__(self, seed: int = 0) -> None:
        self._asked: list[Request] = []
        self.reseed(seed, 0)

    def reseed(self, seed: int, iteration: int) -> None:
        """Start the masks of ``iteration``: the same two numbers always give the same masks."""
        self._origin = [seed, iteration, 0xD0]
        self._rng = np.random.default_rng(self._origin)
        self._expected, self._asked = tuple(self._asked), []
        self._together: Any = None  # the expected masks, one after the other, on the device

    def mask(self, batch: int, channels: int, p: float) -> np.ndarray:
        """(batch, channels) float32: 0 where a channel is dropped, 1/(1−p) elsewhere."""
        kept = self._rng.random((batch, channels)) >= p
        return (kept / (1.0 - p)).astype(np.float32)

    def factors(self, batch: int, channels: int, p: float):
        """:meth:`mask` on the device."""
        position, request = len(self._asked), (batch, channels, p)
        self._asked.append(request)
        if self._expected[: position + 1] != tuple(self._asked):
            return self._alone(position, request)
        if self._together is None:
            self._together = self._upload(self._expected)
        start = sum(b * c for b, c, _ in self._expected[:position])
        return self._together[start : start + batch * channels].reshape(batch, channels)

    def _upload(self, requests: Sequence[Request]):
        masks = np.concatenate([self.mask(*request).ravel() for request in requests])
        uploaded = jt.array(masks).stop_grad()
        # parts share their whole's memory, and each part of what was uploaded would be freed like an upload
        return uploaded * 1.0 if jt.flags.use_cuda else uploaded

    def _alone(self, position: int, request: Request):
        """Draw an unexpected request as it comes; where more has been drawn already, from the beginning again."""
        if self._together is not None:
            self._rng, self._together = np.random.default_rng(self._origin), None
            for earlier in self._asked[:position]:
                self.mask(*earlier)
        self._expected = ()
        return jt.array(self.mask(*request)).stop_grad()


class ChannelDropout(jt.nn.Module):
    """Zero whole channels with probability ``p`` in training, as PyTorch's ``Dropout2d``; the identity otherwise."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.source = DropoutSource()  # until a network gives all of its dropouts one source

    def factors(self, batch: int, channels: int):
        """Factors of the channels, (B, C): 0 or 1/(1−p); None where nothing is dropped."""
        if not self.is_training() or self.p == 0:
            return None
        return self.source.factors(batch, channels, self.p)

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
