"""The CUDA probe on fake drivers and fake toolkits: every refusal has its own reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpanet.runtime.cuda import toolkit as toolkits
from cpanet.runtime.cuda.probe import GIB, Driver, Gpu, cuda_report, probe_cuda, read_driver
from cpanet.runtime.cuda.toolkit import Toolkit, find_toolkit

A100 = Gpu("NVIDIA A100", 80, 40 * GIB)
DRIVER = Driver((12, 4), (A100,))
TOOLKIT = Toolkit(
    Path("/c/bin/nvcc"), (12, 2, 140), Path("/c/libcudart.so"), Path("/c/libcudnn.so"), (8, 9, 7)
)
NEW_DRIVER = replace(DRIVER, version=(13, 0))
NEW_TOOLKIT = replace(TOOLKIT, version=(13, 0, 88), cudnn_version=(9, 28, 0), headers=(13, 0), newest_gcc=15)


def fake_cuda(init=0, version=12040, gpus=(A100,)):
    """libcuda as ctypes shows it: results through byref pointers, a status as the return value."""

    def writes(answer):
        def function(out, *arguments):
            out._obj.value = answer(*arguments)
            return 0

        return function

    return SimpleNamespace(
        cuInit=lambda flags: init,
        cuDriverGetVersion=writes(lambda: version),
        cuDeviceGetCount=writes(lambda: len(gpus)),
        cuDeviceGet=writes(lambda index: index),
        cuDeviceGetName=lambda out, size, device: setattr(out, "value", gpus[device.value].name.encode()),
        cuDeviceGetAttribute=writes(
            lambda attribute, device: divmod(gpus[device.value].capability, 10)[(75, 76).index(attribute)]
        ),
        cuDeviceTotalMem_v2=writes(lambda device: gpus[device.value].memory),
    )


def missing_library(name):
    raise OSError(f"{name}: cannot open shared object file")


def test_driver_is_read():
    second = Gpu("NVIDIA T4", 75, 15 * GIB)
    assert read_driver(lambda name: fake_cuda(gpus=(A100, second))) == Driver((12, 4), (A100, second))


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing_library, "no NVIDIA driver"),
        (lambda name: fake_cuda(init=100), "cuInit returned 100, no device"),
        (lambda name: fake_cuda(init=3), "cuInit returned 3)"),
        (lambda name: fake_cuda(gpus=()), "sees no GPU"),
    ],
)
def test_driver_refusals(load, reason):
    found = read_driver(load)
    assert reason in found
    assert "\n" not in found
    assert cuda_report(found, TOOLKIT) == replace(
        cuda_report(DRIVER, TOOLKIT), usable=False, reason=found, driver=None
    )


def test_a_matching_pair_is_usable():
    report = cuda_report(DRIVER, TOOLKIT)
    assert (report.usable, report.reason, report.gpu) == (True, "", "NVIDIA A100")


def changed_gpu(**changes) -> Driver:
    return replace(DRIVER, gpus=(replace(A100, **changes),))


@pytest.mark.parametrize(
    ("driver", "toolkit", "reason"),
    [
        (DRIVER, "no CUDA compiler (nvcc) was found", "no CUDA compiler"),
        (replace(DRIVER, version=(11, 4)), TOOLKIT, "driver is too old: it serves CUDA up to 11.4"),
        (DRIVER, NEW_TOOLKIT, "driver is too old: it serves CUDA up to 12.4, the toolkit is CUDA 13.0"),
        (DRIVER, replace(TOOLKIT, version=(10, 2, 89)), "CUDA 10.2"),
        (NEW_DRIVER, replace(TOOLKIT, version=(14, 0, 1)), "CUDA 14.0"),
        (NEW_DRIVER, replace(NEW_TOOLKIT, cudnn=None, missing=("cuDNN 9",)), "no cuDNN 9"),
        (
            NEW_DRIVER,
            replace(NEW_TOOLKIT, missing=("NVVM", "cuBLAS")),
            "lacks NVVM, cuBLAS; pip install '.[cuda]'",
        ),
        (NEW_DRIVER, replace(NEW_TOOLKIT, cudnn_version=(8, 9, 7)), "cuDNN 8 is not one"),
        (NEW_DRIVER, replace(NEW_TOOLKIT, headers=(13, 2)), "headers are of CUDA 13.2, the compiler of 13.0"),
        (DRIVER, replace(TOOLKIT, cudart=None), "no CUDA runtime library"),
        (DRIVER, replace(TOOLKIT, cudnn=None), "no cuDNN 8 (libcudnn.so)"),
        (DRIVER, replace(TOOLKIT, cudnn_version=None), "no cuDNN headers"),
        (DRIVER, replace(TOOLKIT, cudnn_version=(9, 1, 0)), "cuDNN 9"),
        (changed_gpu(capability=120), TOOLKIT, "compute capability 12.0"),
        (changed_gpu(capability=37), TOOLKIT, "compute capability 3.7"),
        (changed_gpu(memory=GIB), TOOLKIT, "1.0 GiB of memory"),
        (replace(changed_gpu(capability=70), version=(13, 0)), NEW_TOOLKIT, "compute capability 7.0"),
        (replace(changed_gpu(capability=130), version=(13, 0)), NEW_TOOLKIT, "compute capability 13.0"),
    ],
)
def test_every_refusal_has_its_reason(driver, toolkit, reason):
    report = cuda_report(driver, toolkit)
    assert not report.usable
    assert reason in report.reason
    assert "\n" not in report.reason


@pytest.mark.parametrize("capability", [75, 80, 89, 90, 100, 120])
def test_what_cuda_13_compiles_for(capability):
    driver = replace(changed_gpu(capability=capability), version=(13, 0))
    assert cuda_report(driver, NEW_TOOLKIT).reason == ""


def test_a_host_compiler_that_is_too_new():
    assert cuda_report(NEW_DRIVER, NEW_TOOLKIT, gcc=15).usable
    report = cuda_report(NEW_DRIVER, NEW_TOOLKIT, gcc=16)
    assert report.reason == "g++ 16 is newer than CUDA 13.0 takes (15); name an older one in cc_path"


def test_what_a_record_says_of_cuda():
    assert cuda_report(NEW_DRIVER, NEW_TOOLKIT).versions == {
        "gpu": "NVIDIA A100, 8.0, 40 GiB",
        "driver's CUDA": "13.0",
        "cuda": "13.0.88",
        "cudnn": "9.28.0",
    }


def toolkit_tree(root: Path, cudart=True, cudnn="8", version="12.2.140") -> Path:
    for folder in ("bin", "lib64", "include"):
        (root / folder).mkdir(parents=True)
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho V{version}\n")
    nvcc.chmod(0o755)
    if cudart:
        (root / "lib64" / "libcudart.so").touch()
    if cudnn:
        (root / "lib64" / "libcudnn.so").touch()
        lines = (
            f"#define CUDNN_{part} {n}" for part, n in zip(("MAJOR", "MINOR", "PATCHLEVEL"), (cudnn, 9, 7))
        )
        (root / "include" / "cudnn_version.h").write_text("\n".join(lines))
    return nvcc


@pytest.fixture
def found(monkeypatch):
    """The toolkit of a machine with these compilers, and with these folders of the system."""

    def find(*compilers: Path, system=((), ())) -> Toolkit | str:
        monkeypatch.setattr(toolkits, "USUAL", [nvcc.parent.parent for nvcc in compilers])
        monkeypatch.setattr(toolkits, "SYSTEM", system)
        return find_toolkit({"PATH": "/nonexistent"}, [])

    return find


def test_a_complete_tree_is_found(tmp_path, found):
    toolkit = found(toolkit_tree(tmp_path / "cuda"))
    assert isinstance(toolkit, Toolkit)
    assert (toolkit.version, toolkit.cudnn_version, toolkit.complete) == ((12, 2, 140), (8, 9, 7), True)
    assert cuda_report(DRIVER, toolkit).usable


def test_a_complete_tree_is_preferred_to_a_bare_compiler(tmp_path, found):
    bare, full = toolkit_tree(tmp_path / "bare", cudart=False, cudnn=""), toolkit_tree(tmp_path / "full")
    toolkit = found(bare, full)
    assert isinstance(toolkit, Toolkit)
    assert toolkit.nvcc == full


def test_a_compiler_without_a_runtime_is_the_known_trap(tmp_path, found):
    """nvcc on the PATH and nothing else: a plain ``import jittor`` fails there."""
    toolkit = found(toolkit_tree(tmp_path / "cuda", cudart=False))
    assert "no CUDA runtime library" in cuda_report(DRIVER, toolkit).reason


def test_cudnn_in_the_system_folders(tmp_path, found):
    nvcc, system = toolkit_tree(tmp_path / "cuda", cudnn=""), toolkit_tree(tmp_path / "usr").parent.parent
    toolkit = found(nvcc, system=((system / "lib64",), (system / "include",)))
    assert cuda_report(DRIVER, toolkit).usable


def test_nothing_found_or_switched_off(tmp_path, found):
    assert str(found()).startswith("no CUDA compiler (nvcc) was found; pip install")
    assert "switched off" in str(find_toolkit({"nvcc_path": "", "PATH": "/usr/bin"}))
    dead = tmp_path / "bin" / "nvcc"
    dead.parent.mkdir()
    dead.write_text("no program")
    assert found(dead) == f"{dead} does not run"


def test_probe_of_this_machine_is_cached_and_one_line():
    report = probe_cuda()
    assert report is probe_cuda()
    assert report.usable == (report.reason == "")
    assert "\n" not in report.reason
