"""Arithmetic of convolutions and matrix products: how many bits of a float32 they look at.

Weights, activations and gradients are stored as float32 at every precision; the names say what the products are
taken in.

On a CPU bfloat16 is for convolutions (``cpanet/ops/bfloat16.py``), where the processor has AMX or AVX512-BF16. ``auto``
takes it there once ``python -m cpanet.doctor`` has found it right and faster (:func:`remember_doctor`), else float32.

On CUDA Jittor's ``use_tensorcore`` chooses cuBLAS's compute type (``cublas_matmul_op``:
1 TF32, 2 bfloat16, 3 float16) and lets cuDNN convert to half precision where it is not 0 (``cudnn_conv_op.cc``). cuDNN takes
TF32 by itself unless ``NVIDIA_TF32_OVERRIDE=0`` is set before it is loaded. A patched Jittor (``cuda/patches.py``) gives
cuDNN float32 at 0, TF32 at 1 and at 2, because bfloat16 is nothing that it converts to, and lets it convert at 3.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.runtime.home import user_cache
from cpanet.runtime.processor import processor

LEVELS = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
PRECISIONS = ("auto", *LEVELS)
# =emulate: operands rounded to bfloat16 and multiplied in float32, on any CPU, slowly; =off: as if the processor had none
BFLOAT16 = "CPANET_BF16"
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")


def bfloat16_on_cpu(environ: Mapping[str, str] | None = None, flags: str | None = None) -> str | None:
    """``native`` where the processor multiplies bfloat16, else None; ``CPANET_BF16`` asks for ``rounded`` or for None."""
    environ = os.environ if environ is None else environ
    asked = environ.get(BFLOAT16)
    if asked == "emulate":
        return "rounded"
    if asked == "off":
        return None
    words = (processor() if flags is None else flags).split()
    return "native" if any(flag in words for flag in BFLOAT16_FLAGS) else None


def offered(device: str) -> tuple[str, ...]:
    """The precisions that ``device`` (``cpu`` or ``cuda``) has here."""
    if device == "cuda":
        return tuple(LEVELS)
    return ("fp32", "bf16") if bfloat16_on_cpu() else ("fp32",)


def default(device: str) -> str:
    """The precision of ``auto``: TF32 on CUDA; on a CPU bfloat16 where the doctor finds it right and faster, else FP32."""
    if device == "cuda":
        return "tf32"
    return "bf16" if bfloat16_on_cpu() == "native" and doctor_prefers_bfloat16() else "fp32"


def _findings() -> Path:
    return user_cache() / f"bf16-{hashlib.sha256(processor().encode()).hexdigest()[:12]}.json"


def remember_doctor(passed: bool, speed: float) -> None:
    """Keep the doctor's findings on this processor: whether bfloat16 passed all checks, and its speed over float32's."""
    found = {"passed": passed, "speed": round(speed, 3)}
    _findings().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_findings(), json.dumps(found).encode())


def doctor_prefers_bfloat16() -> bool:
    """Whether :func:`remember_doctor` kept that bfloat16 is right and faster on this processor."""
    try:
        found = json.loads(_findings().read_text())
        return found["passed"] is True and float(found["speed"]) > 1.0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def resolve(precision: str, device: str) -> str:
    """The precision that ``device`` works at; UserError where it has none of that name."""
    if precision not in PRECISIONS:
        raise UserError(f"Unknown precision: {precision!r}. Choose one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        return default(device)
    if precision not in offered(device):
        why = (
            " (its processor has neither AMX nor AVX512-BF16)"
            if (device, precision) == ("cpu", "bf16")
            else ""
        )
        raise UserError(
            f"precision={precision} cannot be had on device={device}{why}, which offers {', '.join(offered(device))}. "
            "Use precision=auto."
        )
    return precision


def level(precision: str, patched: bool) -> int:
    """Jittor's ``use_tensorcore``.

    An installed Jittor makes float16, with its small range, of convolutions at 1 and at 2: it is left at 0, where cuDNN
    takes TF32 and products are in float32, more bits than were asked for.
    """
    return LEVELS[precision] if patched or precision == "fp16" else 0


def environment(precision: str) -> dict[str, str]:
    """Variables to set before CUDA's libraries are loaded."""
    return {"NVIDIA_TF32_OVERRIDE": "0"} if precision == "fp32" else {}


def bound(environ: Mapping[str, str]) -> str:
    """The precision of CUDA's libraries in a process that makes no choice: float32 alone, or the default."""
    return "fp32" if environ.get("NVIDIA_TF32_OVERRIDE") == "0" else default("cuda")
