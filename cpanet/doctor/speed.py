"""Whether bfloat16 is worth it on this CPU: the convolution that training spends its time in, at both precisions.

The result is kept (:func:`cpanet.runtime.precision.remember_doctor`), so that ``precision=auto`` follows it.
"""

from __future__ import annotations

import time
from typing import Any, Callable

import numpy as np

from cpanet.doctor.checks import Seen

SHAPE = (1, 256, 100, 100)  # a quarter of the paper's 200×200
REPEATS = 3


def compare(tell: Callable[[float], Any]) -> Seen:
    """A check that never fails; ``tell`` is given float32's seconds over bfloat16's, where both could be taken."""
    from cpanet.ops import bfloat16
    from cpanet.ops.conv3x3 import conv3x3_relu
    from cpanet.runtime import jt

    kind = bfloat16.kind()
    if kind is None:
        return Seen("convolutions are float32 here: the kernels could not be built")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE).astype(np.float32)
    w = rng.standard_normal((SHAPE[1], SHAPE[1], 3, 3)).astype(np.float32) / 48
    factors = jt.ones(SHAPE[:2])
    narrow = _seconds(lambda a, b: bfloat16.conv3x3_relu(a, b, factors, kind), x, w)
    wide = _seconds(lambda a, b: conv3x3_relu(a, b, factors, factors, narrow=False), x, w)
    tell(wide / narrow)
    note = "products are emulated in float32 (CPANET_BF16=emulate)" if kind == "rounded" else ""
    return Seen(f"{wide / narrow:.2f} times as fast as float32, forward and backward", note=note)


def _seconds(operator: Callable[[Any, Any], Any], x: np.ndarray, w: np.ndarray) -> float:
    """The shortest of a few passes forward and backward, after one that compiles."""
    from cpanet.runtime import jt

    times = []
    for _ in range(1 + REPEATS):
        a, b = jt.array(x), jt.array(w)
        jt.sync_all()
        begin = time.perf_counter()
        for gradient in jt.grad(operator(a, b).sum(), [a, b]):
            gradient.sync()
        times.append(time.perf_counter() - begin)
    return min(times[1:])
