"""Whether CUDA can be used here, and if not, why: found out without importing Jittor.

Three steps that can be tested apart: ``read_driver`` asks the driver, ``find_toolkit`` looks at folders,
``cuda_report`` is the rule. ``probe_cuda`` does all three on this machine.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable

from cpanet.errors import UserError
from cpanet.runtime import toolchain
from cpanet.runtime.cuda.toolkit import CUDNN as CUDNN_9
from cpanet.runtime.cuda.toolkit import REMEDY, RUNTIME, Toolkit, dotted, find_toolkit

GIB = 1024**3
MIN_MEMORY = 2 * GIB  # contexts, cuBLAS and cuDNN alone take about one (jittor/compile_extern.py)
# Toolkits that Jittor 1.3.11 builds against, with the compute capabilities that both compile for: 11 and 12 as it is (it
# caps the architecture at 9.0 and emits no PTX), 13 patched (``patches.yaml``).
CAPABILITIES = {11: (35, 90), 12: (50, 90), 13: (75, 121)}
CUDNN = {11: 8, 12: 8, 13: 9}
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
    """The driver: the newest CUDA it serves, as (12, 4), and its devices."""

    version: tuple[int, int]
    gpus: tuple[Gpu, ...]


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | str:
    """Asks the NVIDIA driver for its version and devices; a string is the reason why there is none to use."""
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    code = cuda.cuInit(0)
    if code != 0:
        meaning = f", {FAILURES[code]}" if code in FAILURES else ""
        return f"the NVIDIA driver does not start (cuInit returned {code}{meaning})"
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


@dataclass(frozen=True)
class CudaReport:
    """The verdict: usable or the one reason why not, with everything that was found on the way."""

    usable: bool
    reason: str
    driver: Driver | None = None
    toolkit: Toolkit | None = None

    @property
    def gpu(self) -> str | None:
        return None if self.driver is None else self.driver.gpus[0].name

    @property
    def versions(self) -> dict[str, str]:
        """For records: GPU with its compute capability, the CUDA that the driver serves, toolkit, cuDNN."""
        found = {}
        if self.driver is not None:
            gpu = self.driver.gpus[0]
            found["gpu"] = f"{gpu.name}, {gpu.compute_capability}, {gpu.memory / GIB:.0f} GiB"
            found["driver's CUDA"] = dotted(self.driver.version)
        if self.toolkit is not None:
            found["cuda"] = dotted(self.toolkit.version)
            found["cudnn"] = dotted(self.toolkit.cudnn_version) or "none"
        return found


@lru_cache(maxsize=1)
def probe_cuda() -> CudaReport:
    """Verifies driver, device, compiler, CUDA runtime and cuDNN here. Cached; never imports Jittor."""
    driver = read_driver()
    # Without a driver nothing on disk can help, and asking compilers for their versions takes time.
    toolkit = driver if isinstance(driver, str) else find_toolkit(os.environ)
    gcc = _host_compiler() if isinstance(toolkit, Toolkit) else None
    return cuda_report(driver, toolkit, gcc)


def _host_compiler() -> int | None:
    """Major version of g++, or None where there is none, which is told elsewhere."""
    try:
        version = toolchain.tool_version(toolchain.find_compiler())
    except UserError:
        return None
    return int(version.split(".")[0]) if version[0].isdigit() else None


def cuda_report(driver: Driver | str, toolkit: Toolkit | str, gcc: int | None = None) -> CudaReport:
    """Whether Jittor can run on this driver with this toolkit and g++ ``gcc``; the reason is one line."""
    if isinstance(driver, str):
        return CudaReport(False, driver, None, toolkit if isinstance(toolkit, Toolkit) else None)
    if isinstance(toolkit, str):
        return CudaReport(False, toolkit, driver)
    reason = next(_obstacles(driver, toolkit, gcc), "")
    return CudaReport(reason == "", reason, driver, toolkit)


def _obstacles(driver: Driver, toolkit: Toolkit, gcc: int | None) -> Iterator[str]:
    """Why this pair will not do: versions, GPU, missing parts, and those that do not fit each other, in this order."""
    major, release, gpu = toolkit.version[0], dotted(toolkit.version[:2]), driver.gpus[0]
    if major not in CAPABILITIES:
        yield f"CUDA {release} ({toolkit.nvcc}) is not one that Jittor builds against (11, 12 or 13); {REMEDY}"
    if major > driver.version[0]:
        served = dotted(driver.version)
        yield f"the driver is too old: it serves CUDA up to {served}, the toolkit is CUDA {release}"
    low, high = CAPABILITIES[major]
    if not low <= gpu.capability <= high:
        yield f"{gpu.name} (compute capability {gpu.compute_capability}) is none that CUDA {release} and Jittor compile for"
    if gpu.memory < MIN_MEMORY:
        yield f"{gpu.name} has {gpu.memory / GIB:.1f} GiB of memory; {MIN_MEMORY / GIB:.0f} are needed"
    if toolkit.cudart is None:
        yield f"no CUDA runtime library (libcudart.so) beside {toolkit.nvcc}"
    wanted, cudnn = CUDNN[major], toolkit.cudnn_version
    if toolkit.cudnn is None:
        yield f"no cuDNN {wanted} (libcudnn.so) beside {toolkit.nvcc} or in the system folders"
    if missing := [name for name in toolkit.missing if name not in (RUNTIME.name, CUDNN_9.name)]:
        yield f"CUDA {release} ({toolkit.nvcc}) lacks {', '.join(missing)}; {REMEDY}"
    if cudnn is None:
        yield "no cuDNN headers (cudnn_version.h) beside the toolkit or in the system folders"
    elif cudnn[0] != wanted:
        yield f"cuDNN {cudnn[0]} is not one that Jittor builds against with CUDA {release} ({wanted})"
    if toolkit.headers is not None and toolkit.headers != toolkit.version[:2]:
        yield f"the headers are of CUDA {dotted(toolkit.headers)}, the compiler of {release}; {REMEDY}"
    if gcc is not None and toolkit.newest_gcc is not None and gcc > toolkit.newest_gcc:
        yield f"g++ {gcc} is newer than CUDA {release} takes ({toolkit.newest_gcc}); name an older one in cc_path"
