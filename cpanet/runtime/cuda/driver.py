"""What the NVIDIA driver says of itself and of its GPUs."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Callable

FAILURES = {
    100: "no device",
    803: "driver and libraries do not match",
    804: "the driver lacks forward compatibility",
}


@dataclass(frozen=True)
class Gpu:
    """One device: name, compute capability as 90 for 9.0, memory in bytes."""

    name: str
    capability: int
    memory: int

    @property
    def compute_capability(self) -> str:
        """As NVIDIA writes it: "9.0"."""
        return f"{self.capability // 10}.{self.capability % 10}"


@dataclass(frozen=True)
class Driver:
    """What the driver says: the newest CUDA it serves as (12, 4), and its devices."""

    version: tuple[int, int]
    gpus: tuple[Gpu, ...]


def dotted(version: tuple[int, ...] | None) -> str:
    """(13, 0) as "13.0"; nothing for None."""
    return ".".join(map(str, version or ()))


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | str:
    """Asks the NVIDIA driver for its version and devices; a string is the reason why there is none to use."""
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    code = cuda.cuInit(0)
    if code != 0:
        meaning = FAILURES.get(code, "")
        return f"the NVIDIA driver does not start (cuInit returned {code}{f', {meaning}' if meaning else ''})"
    number, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver does not answer"
    if count.value == 0:
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)"
    gpus = tuple(_read_gpu(cuda, index) for index in range(count.value))
    return Driver((number.value // 1000, number.value % 1000 // 10), gpus)


def _read_gpu(cuda: Any, index: int) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # …_MINOR
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), major.value * 10 + minor.value, memory.value)
