"""Whether CUDA can be used here, and if not, why: found out without importing Jittor.

Three steps that can be tested apart: ``read_driver`` asks the driver, ``find_toolkit`` looks at folders,
``judge`` is the rule. ``probe_cuda`` does all three on this machine.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

from cpanet.runtime.toolchain import tool_version

GIB = 1024**3
MIN_MEMORY = 2 * GIB  # contexts, cuBLAS and cuDNN alone take about one (jittor/compile_extern.py)
JITTOR_MAX_ARCH = 90  # jittor/compiler.py caps the architecture there and emits no PTX
# Toolkits that stock Jittor 1.3.11 builds against, with the compute capabilities they compile for.
SUPPORTED_TOOLKITS = {11: (35, 90), 12: (50, 90)}


@dataclass(frozen=True)
class Gpu:
    """One device: name, compute capability as 90 for 9.0, memory in bytes."""

    name: str
    capability: int
    memory: int


@dataclass(frozen=True)
class Driver:
    """What the driver says: the newest CUDA it serves as (12, 4), and its devices."""

    version: tuple[int, int]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: compiler, its version, and the libraries found beside it (None where missing)."""

    nvcc: Path
    version: tuple[int, ...]
    cudart: Path | None = None
    cudnn: Path | None = None
    cudnn_version: tuple[int, ...] | None = None

    @property
    def complete(self) -> bool:
        return self.cudart is not None and self.cudnn is not None


@dataclass(frozen=True)
class CudaReport:
    """The verdict: usable or the one reason why not, with everything that was found on the way."""

    usable: bool
    reason: str
    driver: Driver | None = None
    toolkit: Toolkit | None = None

    @property
    def gpu(self) -> str | None:
        return self.driver.gpus[0].name if self.driver is not None and self.driver.gpus else None


@lru_cache(maxsize=1)
def probe_cuda() -> CudaReport:
    """Verifies driver, device, compiler, CUDA runtime and cuDNN here. Cached; never imports Jittor."""
    return judge(read_driver(), find_toolkit(ToolkitPlaces.of_machine(os.environ)))


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | str:
    """Asks the NVIDIA driver for its version and devices; a string is the reason why there is none to use."""
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    code = cuda.cuInit(0)
    if code != 0:
        meaning = {100: "no device", 999: "unknown error", 804: "driver and libraries do not match"}.get(
            code, ""
        )
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


@dataclass(frozen=True)
class ToolkitPlaces:
    """Where to look: compilers in order of preference, and library and header folders outside the toolkit."""

    nvcc: tuple[Path, ...]
    system_libraries: tuple[Path, ...] = ()
    system_includes: tuple[Path, ...] = ()
    switched_off: bool = False
    version_of: Callable[[str], str] = field(default=tool_version)

    @classmethod
    def of_machine(cls, environ: Mapping[str, str]) -> ToolkitPlaces:
        asked = environ.get("nvcc_path")
        on_path = shutil.which("nvcc", path=environ.get("PATH"))
        candidates = (
            [asked] if asked else [on_path, "/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc", "/usr/bin/nvcc"]
        )
        return cls(
            nvcc=tuple(Path(c) for c in candidates if c and Path(c).is_file()),
            system_libraries=(Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")),
            system_includes=(Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu")),
            switched_off=asked == "",
        )


def find_toolkit(places: ToolkitPlaces) -> Toolkit | str:
    """The first complete toolkit, else the first incomplete one; a string is the reason why there is none."""
    if places.switched_off:
        return "CUDA is switched off by an empty nvcc_path in the environment"
    toolkits = [toolkit for nvcc in places.nvcc if (toolkit := _read_toolkit(nvcc, places)) is not None]
    if not toolkits:
        return "no CUDA compiler (nvcc) was found" if not places.nvcc else f"{places.nvcc[0]} does not run"
    return next((toolkit for toolkit in toolkits if toolkit.complete), toolkits[0])


def _read_toolkit(nvcc: Path, places: ToolkitPlaces) -> Toolkit | None:
    version = _numbers(places.version_of(str(nvcc)))
    if not version:
        return None
    root = nvcc.resolve().parent.parent
    libraries = (root / "lib64", root / "lib", root / "targets/x86_64-linux/lib", *places.system_libraries)
    includes = (root / "include", root / "targets/x86_64-linux/include", *places.system_includes)
    # The runtime must be of this very toolkit; cuDNN is often installed apart from it.
    own = libraries if root == Path("/usr") else libraries[:3]
    return Toolkit(
        nvcc=nvcc,
        version=version,
        cudart=_first_file(own, "libcudart.so"),
        cudnn=_first_file(libraries, "libcudnn.so"),
        cudnn_version=_cudnn_version(includes),
    )


def _first_file(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _cudnn_version(includes: Sequence[Path]) -> tuple[int, ...] | None:
    header = _first_file(includes, "cudnn_version.h")
    if header is None:
        return None
    text = header.read_text(errors="replace")
    found = [re.search(rf"#define CUDNN_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCHLEVEL")]
    return tuple(int(match.group(1)) for match in found if match is not None) or None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def judge(driver: Driver | str, toolkit: Toolkit | str) -> CudaReport:
    """Whether Jittor can run on this driver with this toolkit; the reason is one line."""
    known_driver = driver if isinstance(driver, Driver) else None
    known_toolkit = toolkit if isinstance(toolkit, Toolkit) else None
    reason = (
        driver
        if isinstance(driver, str)
        else toolkit
        if isinstance(toolkit, str)
        else _refusal(driver, toolkit)
    )
    return CudaReport(reason == "", reason, known_driver, known_toolkit)


def _refusal(driver: Driver, toolkit: Toolkit) -> str:
    """Why this pair will not do, or an empty string."""
    major = toolkit.version[0]
    release = ".".join(str(n) for n in toolkit.version[:2])
    gpu = driver.gpus[0]
    capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
    if major not in SUPPORTED_TOOLKITS:
        return f"CUDA {release} ({toolkit.nvcc}) is not one Jittor builds against (11 or 12, with cuDNN 8)"
    low, high = SUPPORTED_TOOLKITS[major]
    if major > driver.version[0]:
        return (
            f"the driver is too old: it serves CUDA up to {driver.version[0]}.{driver.version[1]}, "
            f"the toolkit is CUDA {release}"
        )
    if toolkit.cudart is None:
        return f"no CUDA runtime library (libcudart.so) beside {toolkit.nvcc}"
    if toolkit.cudnn is None:
        return f"no cuDNN (libcudnn.so) beside {toolkit.nvcc} or in the system folders"
    if toolkit.cudnn_version is None:
        return "no cuDNN headers (cudnn_version.h) beside the toolkit or in the system folders"
    if toolkit.cudnn_version[0] != 8:
        return f"cuDNN {toolkit.cudnn_version[0]} is not one that Jittor builds against (8)"
    if not low <= gpu.capability <= min(high, JITTOR_MAX_ARCH):
        return (
            f"{gpu.name} (compute capability {capability}) is none that CUDA {release} and Jittor compile for"
        )
    if gpu.memory < MIN_MEMORY:
        return f"{gpu.name} has {gpu.memory / GIB:.1f} GiB of memory; {MIN_MEMORY / GIB:.0f} are needed"
    return ""
