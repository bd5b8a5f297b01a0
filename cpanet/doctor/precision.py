"""How far a product may be off at each precision, and in how many bits it was really taken.

Precisions are those of :mod:`cpanet.runtime.precision`: every number is stored as float32, the names say what the operands
of convolutions and matrix products are cut to before they are multiplied. Sums are float32's at every precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cpanet.doctor.checks import CheckFailed, Checks, Seen

# Explicit bits of the mantissa (NVIDIA's TF32 and IEEE's half 10, bfloat16 7); the others have float32's 8 bits of exponent
BITS = {"fp32": 23, "tf32": 10, "bf16": 7, "fp16": 10}
NARROW = "fp16"  # 5 bits of exponent: what is below 2^-25 becomes zero
# Of the largest value. Float32 sums of N products are off by about √N·2^-24, 2e-6 for the 756 of a kernel's gradient here;
# nvcc's --use_fast_math (exponential, logarithm, division, root) adds some 1e-6, cuDNN's Winograd and FFT convolutions 1e-5.
EXACT = 1e-4


def tolerance(precision: str) -> float:
    """Largest deviation, of the largest value, of what is made of products at ``precision``.

    An operand cut to m explicit bits is off by up to 2^-m of itself (half of that where it is rounded), so a product of two
    by 2·2^-m. In a sum, errors and values of either sign both grow as the root of the number of terms, so that the ratio
    stays what it is, whatever the length. Twice that leaves room for the two or three products in a row of an enlargement
    and of a convolution of an enlarged map.
    """
    return EXACT if precision == "fp32" else EXACT + 4 * 2.0 ** -BITS[precision]


# ------------------------------------------------------ measuring the bits

SIZE = 256  # channels, as in training: for smaller ones a library may choose other units than there
STEPS = 2.0 ** -np.arange(1, 24)
TINY = 2.0**-30  # float16 has nothing between this and zero


def probes() -> np.ndarray:
    """(SIZE,): 1 + 2^-k is itself where an operand keeps k bits, 1 or 1 + 2^-(k-1) where it keeps fewer."""
    return np.concatenate([1 + STEPS, [TINY], np.ones(SIZE - len(STEPS) - 1)])


class Delivered(NamedTuple):
    """Bits of the mantissa (23 at most) and whether small numbers keep float32's range."""

    bits: int
    wide: bool

    @property
    def name(self) -> str:
        """The precision this is; what lies between two is called by the number of its bits."""
        if self.bits >= 16:  # float32 products in three passes of fewer bits count as float32
            return "fp32"
        if self.bits >= 9:
            return "tf32" if self.wide else "fp16"
        return "bf16" if self.bits >= 6 and self.wide else f"{self.bits} bits"


class Diagonal(NamedTuple):
    """Where an operand of a product keeps the numbers of a diagonal matrix: shape, and index of each."""

    shape: tuple[int, ...]
    places: tuple[Any, ...]

    def put(self, diagonal: np.ndarray) -> np.ndarray:
        array = np.zeros(self.shape, np.float32)
        array[self.places] = diagonal
        return array


def read(values: np.ndarray) -> Delivered:
    """The precision of the products ``probes() · 1``; values (SIZE,)."""
    values = np.asarray(values, np.float64)
    kept = np.abs(values[: len(STEPS)] - 1 - STEPS) < STEPS / 2
    return Delivered(int(np.argmin([*kept, False])), bool(values[len(STEPS)] > TINY / 2))


def measure(operator: Callable[..., Any], layouts: Sequence[Diagonal]) -> dict[str, Delivered]:
    """The bits of ``operator(a, b)``, a product with diagonal operands, and of its gradients; the worse of both operands.

    ``layouts`` are those of a, b and the result. Each pass is a product of two of a, b and the cotangent r, one of which
    holds :func:`probes` at a time, the others ones.
    """
    from cpanet.runtime import jt

    found: dict[str, list[Delivered]] = {"result": [], "gradient of input": [], "gradient of weight": []}
    for probed in range(3):
        arrays = [
            layout.put(probes() if position == probed else np.ones(SIZE))
            for position, layout in enumerate(layouts)
        ]
        a, b, r = (jt.array(array) for array in arrays)
        result = operator(a, b)
        outcome = [result, *jt.grad((result * r).sum(), [a, b])]
        for position, (name, layout) in enumerate(zip(found, (layouts[2], layouts[0], layouts[1]))):
            if probed != (2, 0, 1)[position]:  # the one that this pass does not read
                values = outcome[position].numpy().reshape(layout.shape)[layout.places]
                found[name] += [read(row) for row in values.reshape(-1, SIZE)]
    return {
        name: Delivered(min(d.bits for d in several), all(d.wide for d in several))
        for name, several in found.items()
    }


def verdict(asked: str, found: Mapping[str, Delivered]) -> Seen:
    """One line on what was delivered. CheckFailed where that is fewer bits, or a smaller range, than was asked for.

    More bits than asked for are a note: slower, not wrong.
    """
    wrong = [name for name, delivered in found.items() if delivered.bits == 0]
    if wrong:
        raise CheckFailed(f"{', '.join(wrong)}: wrong from the first bit on")
    least = min(found.values(), key=lambda delivered: delivered.bits)
    said = ", ".join(f"{name} {d.name} ({d.bits} bits)" for name, d in found.items())
    if len({d.name for d in found.values()}) == 1:
        said = f"{least.name} ({least.bits} bits)"
    fewest = 16 if asked == "fp32" else BITS[asked] - 1  # transforms like Winograd's may cost the last bit
    if least.bits < fewest:
        raise CheckFailed(f"taken in {said} where {asked} was asked for")
    if asked != NARROW and not all(d.wide for d in found.values()):
        raise CheckFailed(
            f"numbers below 2^-25 vanish, as in float16, where {asked} was asked for ({said}): "
            "small gradients would be lost"
        )
    others = sorted({d.name for d in found.values()} - {asked})
    return Seen(said, note=f"asked for {asked}, delivered {' and '.join(others)}" if others else "")


def checks(precision: str) -> Checks:
    """Checks that convolutions and matrix products have the precision that was asked for."""
    from cpanet import ops
    from cpanet.runtime import jt

    index = np.arange(SIZE)
    # channel c of a map holds its number at a pixel of its own, two apart
    image = Diagonal((1, SIZE, 32, 32), (0, index, 2 * (index // 16), 2 * (index % 16)))

    def kernel(k: int) -> Diagonal:
        return Diagonal((SIZE, SIZE, k, k), (index, index, k // 2, k // 2))

    def matrix(*batch: int) -> Diagonal:
        return Diagonal((*batch, SIZE, SIZE), (..., index, index))

    def examine(operator: Callable[..., Any], *layouts: Diagonal) -> Callable[[], Seen]:
        return lambda: verdict(precision, measure(operator, layouts))

    return {
        "bits of a convolution 3×3": examine(
            lambda x, w: ops.conv2d(x, w, padding=1), image, kernel(3), image
        ),
        "bits of a convolution 1×1": examine(lambda x, w: ops.conv2d(x, w), image, kernel(1), image),
        "bits of a matrix product": examine(lambda a, b: jt.matmul(a, b), *[matrix()] * 3),
        "bits of a batched matrix product": examine(lambda a, b: jt.matmul(a, b), *[matrix(2)] * 3),
    }
