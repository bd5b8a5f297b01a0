"""Arithmetic of convolutions and matrix products: how many bits of a float32 they look at.

Weights, activations and gradients are stored as float32 at every precision; the names say what the products are
taken in. A CPU has float32 alone. On CUDA Jittor's ``use_tensorcore`` chooses cuBLAS's compute type (``cublas_matmul_op``:
1 TF32, 2 bfloat16, 3 float16) and lets cuDNN convert to half precision where it is not 0 (``cudnn_conv_op.cc``). cuDNN takes
TF32 by itself unless ``NVIDIA_TF32_OVERRIDE=0`` is set before it is loaded. A mended Jittor (``cuda/mends.py``) gives
cuDNN float32 at 0, TF32 at 1 and at 2, because bfloat16 is nothing that it converts to, and lets it convert at 3.
"""

from __future__ import annotations

from collections.abc import Mapping

from cpanet.errors import UserError

LEVELS = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
PRECISIONS = ("auto", *LEVELS)
OFFERED = {"cpu": ("fp32",), "cuda": tuple(LEVELS)}
DEFAULT = {"cpu": "fp32", "cuda": "tf32"}


def resolve(precision: str, device: str) -> str:
    """The precision that ``device`` works at; UserError where it has none of that name."""
    if precision not in PRECISIONS:
        raise UserError(f"Unknown precision: {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        return DEFAULT[device]
    if precision not in OFFERED[device]:
        raise UserError(
            f"precision={precision} cannot be had on device={device}, which offers {', '.join(OFFERED[device])}. "
            "Use precision=auto."
        )
    return precision


def level(precision: str, mended: bool) -> int:
    """Jittor's ``use_tensorcore``.

    An installed Jittor makes float16, with its small range, of convolutions at 1 and at 2: it is left at 0, where cuDNN
    takes TF32 and products are in float32, more bits than were asked for.
    """
    return LEVELS[precision] if mended or precision == "fp16" else 0


def environment(precision: str) -> dict[str, str]:
    """Variables to set before CUDA's libraries are loaded."""
    return {"NVIDIA_TF32_OVERRIDE": "0"} if precision == "fp32" else {}


def bound(environ: Mapping[str, str]) -> str:
    """What CUDA's libraries run at in a process that was left without a choice: float32 alone, or the default."""
    return "fp32" if environ.get("NVIDIA_TF32_OVERRIDE") == "0" else DEFAULT["cuda"]
