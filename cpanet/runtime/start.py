"""Starting Jittor: environment, lock, import, flags; once in a process."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

import numpy as np

import cpanet
from cpanet.errors import UserError
from cpanet.runtime import locks, onednn, quiet, toolchain
from cpanet.runtime import precision as precisions
from cpanet.runtime.cache_repair import repair
from cpanet.runtime.compile_operators import compile_operators_safely
from cpanet.runtime.cuda import patches
from cpanet.runtime.cuda.probe import GIB, CudaReport, probe_cuda
from cpanet.runtime.cuda.toolkit_links import assemble
from cpanet.runtime.environment import jittor_environment, wants_onednn
from cpanet.runtime.home import cache_folder, choose_home, own_folder, user_home
from cpanet.runtime.processor import flush_subnormals, set_threads

DEVICES = ("auto", "cpu", "cuda")
# bytes for one convolution by cuDNN; unfolding two maps of 256 channels at 200×200 for a 3×3 takes 0.7 GiB
MAX_WORKSPACE = 2 * GIB
NVCC = "nvcc_path"  # Jittor's variable: its CUDA compiler, empty for none


@dataclass(frozen=True)
class Runtime:
    """The settings that Jittor was started with."""

    device: str
    why_not_cuda: str
    versions: dict[str, str] = field(compare=False)
    onednn: Path | None
    cache_home: Path
    gpu: str | None = None
    precision: str = "fp32"
    patched: bool = False  # Jittor's sources, for CUDA 13


_runtime: Runtime | None = None


def current() -> Runtime | None:
    """The runtime of this process, or None while Jittor has not been started."""
    return _runtime


def prepare(
    device: str = "auto", verbose: bool = False, threads: int | None = None, precision: str | None = None
) -> Runtime:
    """Starts Jittor on ``device`` ("auto", "cpu" or "cuda") and returns what was chosen.

    May be called again: "auto" keeps what is there, another device is switched to where Jittor was built for
    it. ``verbose`` lets Jittor's log through, ``threads`` bounds the CPU kernels (else OMP_NUM_THREADS, else
    the CPUs that the process may use), ``precision`` is one of :data:`cpanet.runtime.precision.PRECISIONS` (None:
    as it is, at the start the device's own). UserError, with the remedy, for a missing compiler or headers, a cache
    that cannot be written, or a device that cannot be had.
    """
    global _runtime
    if device not in DEVICES:
        raise UserError(f"Unknown device: {device!r}. Choose one of {', '.join(DEVICES)}.")
    if _runtime is None:
        _runtime = _start(device, verbose, threads, precision)
    else:
        _runtime = _switch(_runtime, device)
        if threads is not None:
            set_threads(threads)
    # always: on CUDA Jittor has to be told its own choice, too
    _runtime = _at(_runtime, precisions.resolve(precision or _runtime.precision, _runtime.device))
    return _runtime


def _at(runtime: Runtime, precision: str) -> Runtime:
    """The running Jittor at ``precision``."""
    if runtime.device == "cuda":
        import jittor

        if "fp32" in (precision, runtime.precision) and precision != runtime.precision:
            raise UserError(
                f"precision={precision}: CUDA's libraries run at {runtime.precision} in this process already. "
                "Ask for it in a new process."
            )
        jittor.flags.use_tensorcore = precisions.level(precision, runtime.patched)
    return runtime if precision == runtime.precision else replace(runtime, precision=precision)


def _start(device: str, verbose: bool, threads: int | None, precision: str | None) -> Runtime:
    report = CudaReport(False, "device=cpu was asked for") if device == "cpu" else probe_cuda()
    if device == "cuda" and not report.usable:
        raise UserError(f"device=cuda cannot be used: {report.reason}. Put that right, or use device=cpu.")
    wanted = precisions.resolve(precision or "auto", "cuda" if report.usable else "cpu")
    os.environ.update(precisions.environment(wanted))
    compiler = toolchain.find_compiler()
    headers = toolchain.find_headers()
    home = choose_home(os.environ)
    cache, own = cache_folder(home), own_folder(home)
    with locks.import_lock(home) as announce, _restored("HOME", NVCC):
        library = onednn.present(cache, onednn.find_wheels())
        if library is None and wants_onednn(os.environ):
            print(
                f"Warning: oneDNN was not found, so CPU convolutions will be slow. Remedy: {onednn.REMEDY}",
                file=sys.stderr,
            )
        nvcc, package = _for_cuda(report, own)
        config = toolchain.python_config(headers, own)
        chosen = jittor_environment(
            os.environ, home, compiler, nvcc, library is not None, config, threads, verbose, package
        )
        # Jittor writes ~/.cache/jittor/config.json even where JITTOR_HOME points elsewhere (failing where ~ is read-only),
        # and remembers there the last JITTOR_HOME for programs that do not set it
        os.environ.update({**chosen, "HOME": str(home)})
        jittor = _import_jittor(cache, verbose, announce, package)
    locks.watch_operators_lock(own, compiler)
    compile_operators_safely(jittor, own, compiler)
    if not verbose:
        quiet.silence_operator_progress(own, compiler)
    if threads is not None:
        set_threads(threads)
    why_not = report.reason
    if report.usable and not jittor.has_cuda:
        why_not = "Jittor itself found no CUDA device"
        if device == "cuda":
            raise UserError(
                f"device=cuda cannot be used: {why_not}. Run python -m cpanet.doctor for the details."
            )
    if home != user_home(os.environ):
        jittor.flags.python_path = str(toolchain.python_at_home(home, own, jittor.flags.python_path))
    on_cuda = report.usable and bool(jittor.has_cuda)
    jittor.flags.use_cuda = int(on_cuda)
    if on_cuda:
        _configure_cuda(jittor, report)
    return Runtime(
        device="cuda" if on_cuda else "cpu",
        why_not_cuda=why_not,
        versions={**_packages(), **(report.versions if on_cuda else {})},
        onednn=library if wants_onednn(os.environ) else None,
        cache_home=cache,
        gpu=report.gpu if on_cuda else None,
        precision=wanted if on_cuda == report.usable else "fp32",
        patched=package is not None,
    )


def _for_cuda(report: CudaReport, folder: Path) -> tuple[Path | None, Path | None]:
    """The compiler for Jittor, and the folder to import Jittor from (None: the installed one). Under the import lock."""
    toolkit = report.toolkit
    if not report.usable or toolkit is None:
        return None, None
    if not toolkit.assembled:
        return toolkit.nvcc, None
    return assemble(toolkit, folder), patches.present(folder)


def _configure_cuda(jittor: Any, report: CudaReport) -> None:
    # 1, Jittor's choice, fetches what is uploaded from the device first: two waits for all that was launched before
    jittor.flags.use_cuda_host_allocator = 0
    if report.driver is not None:
        # a quarter of the memory, Jittor's choice, is kept once an algorithm was tried that takes it
        jittor.cudnn.set_max_workspace_ratio(min(0.25, MAX_WORKSPACE / report.driver.gpus[0].memory))


def _switch(runtime: Runtime, device: str) -> Runtime:
    """The running Jittor on another device, where it was built for it."""
    if device in ("auto", runtime.device):
        return runtime
    import jittor

    if device == "cuda" and not jittor.has_cuda:
        raise UserError(
            "device=cuda cannot be used: Jittor runs on the CPU in this process already "
            f"({runtime.why_not_cuda}). Ask for device=cuda first, in a new process."
        )
    jittor.flags.use_cuda = 1 if device == "cuda" else 0
    if device == "cuda":
        precision = precisions.bound(os.environ)
        return replace(runtime, device="cuda", why_not_cuda="", gpu=probe_cuda().gpu, precision=precision)
    return replace(runtime, device="cpu", why_not_cuda="device=cpu was asked for", gpu=None, precision="fp32")


def _import_jittor(cache: Path, verbose: bool, announce: Callable[[], None], package: Path | None) -> Any:
    """``import jittor``, from the folder ``package`` where given, with its side effects on this process undone."""
    # Jittor's kernels flush subnormals to zero; NumPy would warn about that when it first looks at its types
    np.finfo(np.float32), np.finfo(np.float64)
    flush_subnormals()
    added = [] if package is None else [str(package)]
    sys.path[:0] = added
    try:
        with quiet.side_effects_undone():
            utils = importlib.import_module("jittor_utils")
            lock = importlib.import_module("jittor_utils.lock")
            locks.limit_waits(lock)
            repair(Path(utils.cache_path), Path(lock.lock_path))
            with quiet.calm_compilation(utils, verbose, announce):
                try:
                    return importlib.import_module("jittor")
                except SystemExit:
                    # Jittor rebuilt a part that it had loaded already and asks to be started again, with exit
                    # status 0. The rebuilt part has the same sources; importing again is enough.
                    for name in [n for n in sys.modules if n == "jittor" or n.startswith("jittor.")]:
                        del sys.modules[name]
                    return importlib.import_module("jittor")
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"Jittor does not start: {lines[0] if lines else type(error).__name__}. Remove {cache} and try again; "
            "python -m cpanet.doctor --verbose shows Jittor's own log."
        ) from error
    finally:
        for folder in added:
            sys.path.remove(folder)  # and no more: Jittor adds folders of its own


@contextmanager
def _restored(*variables: str) -> Iterator[None]:
    """Afterwards these variables are what they were. A process that is started from here chooses its device itself."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def versions() -> dict[str, str]:
    """Versions for records: Python, the packages that decide the numbers, compiler, platform; on CUDA GPU and toolkit."""
    return _packages() if _runtime is None else dict(_runtime.versions)


def _packages() -> dict[str, str]:
    found = {"cpanet": cpanet.__version__, "python": platform.python_version()}
    for name in ("jittor", "numpy", "onednn-cpu-gomp", "hydra-core", "opencv-python-headless"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        found["compiler"] = "g++ " + toolchain.tool_version(toolchain.find_compiler())
    except UserError:
        found["compiler"] = "not installed"
    return {**found, "platform": platform.platform()}
