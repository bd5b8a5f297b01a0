"""CUDA 13 in pieces: found in wheels and elsewhere, put together by links; a patched Jittor beside the installed one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cpanet.errors import UserError
from cpanet.runtime.cuda import patches
from cpanet.runtime.cuda import toolkit as toolkits
from cpanet.runtime.cuda.probe import Driver, Gpu, cuda_report
from cpanet.runtime.cuda.toolkit import PIECES, Toolkit, find_toolkit
from cpanet.runtime.cuda.toolkit_links import assemble
from tests.processes import python

DRIVER = Driver((13, 0), (Gpu("NVIDIA H100", 90, 80 * 2**30),))
LIBRARIES = {
    "cu13": "cudart.so.13 cublas.so.13 cublasLt.so.13 curand.so.10 cufft.so.12 cusparse.so.12 nvJitLink.so.13",
    "cudnn": "cudnn.so.9 cudnn_graph.so.9 cudnn_ops.so.9",
}
HEADERS = {
    "cu13": "cuda_runtime_api.h cuda_fp16.hpp cublas_v2.h curand.h cufft.h cusparse.h cudalibxt.h crt/host_config.h "
    "cccl/cub/cub.cuh cccl/thrust/sort.h cccl/cuda/functional cccl/nv/target",
    "cudnn": "cudnn.h cudnn_version.h",
}


def write(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def wheels(environment: Path, release: str = "13.0.88", headers: int = 13000) -> Path:
    """Write the files of NVIDIA's wheels into the folder ``environment`` of a Python; the folder."""
    for name, libraries in LIBRARIES.items():
        for library in libraries.split():
            write(environment / "nvidia" / name / "lib" / f"lib{library}", library)
        for header in HEADERS[name].split():
            write(environment / "nvidia" / name / "include" / header)
    root = environment / "nvidia" / "cu13"
    write(root / "lib" / "libcudadevrt.a")
    write(root / "nvvm" / "bin" / "cicc")
    write(root / "include" / "cuda_runtime_api.h", f"#define CUDART_VERSION  {headers}\n")
    write(root / "include" / "crt" / "host_config.h", "#if __GNUC__ > 15\n#error\n#endif\n")
    version = "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 28\n#define CUDNN_PATCHLEVEL 0\n"
    write(environment / "nvidia" / "cudnn" / "include" / "cudnn_version.h", version)
    write(root / "bin" / "nvcc", f'#!/bin/sh\necho "V{release} $*"\n').chmod(0o755)
    return environment


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch):
    monkeypatch.setattr(toolkits, "USUAL", ())
    monkeypatch.setattr(toolkits, "SYSTEM", ((), ()))


def found(*path: Path, **environ: str) -> Toolkit | str:
    """The toolkit of a Python that imports from ``path``, on a machine that has nothing else."""
    return find_toolkit({"PATH": "/nonexistent", **environ}, [str(p) for p in path])


@pytest.fixture
def toolkit(tmp_path) -> Toolkit:
    result = found(wheels(tmp_path / "site"))
    assert isinstance(result, Toolkit)
    return result


def test_the_wheels_of_this_environment(toolkit):
    assert (toolkit.version, toolkit.cudnn_version, toolkit.headers) == ((13, 0, 88), (9, 28, 0), (13, 0))
    assert toolkit.missing == ()
    assert toolkit.assembled
    assert cuda_report(DRIVER, toolkit, gcc=12).usable


def test_wheels_of_another_environment_are_named(tmp_path):
    other = wheels(tmp_path / "other")
    assert "no CUDA compiler" in str(found(tmp_path / "empty"))
    assert isinstance(found(tmp_path / "empty", CPANET_CUDA=str(other)), Toolkit)


def test_a_compiler_below_usr_local_and_cudnn_in_an_environment(tmp_path):
    local, site = wheels(tmp_path / "a") / "nvidia" / "cu13", wheels(tmp_path / "site")
    shutil.rmtree(site / "nvidia" / "cu13")
    (local / "lib").rename(local / "lib64")
    toolkit = found(site, CUDA_HOME=str(local))
    assert isinstance(toolkit, Toolkit)
    assert cuda_report(DRIVER, toolkit).usable
    assert toolkit.cudnn == site / "nvidia/cudnn/lib/libcudnn.so.9"
    assert toolkit.cudart == local / "lib64/libcudart.so.13"


def test_a_compiler_and_runtime_below_usr_local_and_all_libraries_in_an_environment(tmp_path):
    """As where PyTorch brought the libraries: cuFFT's headers include one that is not named after it."""
    local, site = wheels(tmp_path / "a") / "nvidia" / "cu13", wheels(tmp_path / "site")
    for file in (site / "nvidia/cu13/bin/nvcc", site / "nvidia/cu13/lib/libcudart.so.13"):
        file.unlink()
    for name in ("cublas_v2.h", "curand.h", "cufft.h", "cusparse.h", "cudalibxt.h"):
        (local / "include" / name).unlink()
    toolkit = found(site, CUDA_HOME=str(local))
    assert isinstance(toolkit, Toolkit)
    include = assemble(toolkit, tmp_path / "cache").parent.parent / "include"
    assert (include / "cudalibxt.h").resolve() == site / "nvidia/cu13/include/cudalibxt.h"
    assert (include / "cuda_fp16.hpp").resolve() == local / "include/cuda_fp16.hpp"


def test_nvcc_path_comes_first(tmp_path):
    first, second = wheels(tmp_path / "a"), wheels(tmp_path / "b", release="13.1.80", headers=13010)
    nvcc = second / "nvidia/cu13/bin/nvcc"
    toolkit = found(first, nvcc_path=str(nvcc))
    assert isinstance(toolkit, Toolkit)
    assert toolkit.nvcc == nvcc
    # the compiler's own, not the first one's
    assert toolkit.cudart == second / "nvidia/cu13/lib/libcudart.so.13"


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("cudnn/lib/libcudnn.so.9", "no cuDNN 9 (libcudnn.so)"),
        ("cudnn/include/cudnn_version.h", "no cuDNN 9 (libcudnn.so)"),
        ("cu13/lib/libcudart.so.13", "no CUDA runtime library"),
        ("cu13/lib/libcublas.so.13", "lacks cuBLAS; pip install '.[cuda]'"),
        ("cu13/include/cccl/cub/cub.cuh", "lacks CUDA C++ headers"),
        ("cu13/nvvm/bin/cicc", "lacks NVVM"),
        ("cu13/lib/libnvJitLink.so.13", "lacks nvJitLink"),
    ],
)
def test_what_is_missing_is_named(tmp_path, gone, reason):
    site = wheels(tmp_path)
    (site / "nvidia" / gone).unlink()
    toolkit = found(site)
    report = cuda_report(DRIVER, toolkit)
    assert not report.usable
    assert reason in report.reason


def test_headers_of_another_release(tmp_path):
    assert "headers are of CUDA 13.2" in cuda_report(DRIVER, found(wheels(tmp_path, headers=13020))).reason


def test_the_folder_of_links(toolkit, tmp_path):
    nvcc = assemble(toolkit, tmp_path / "cache")
    linked = nvcc.parent.parent
    names = {str(p.relative_to(linked)) for p in linked.rglob("*")}
    libraries = ("libcudart.so", "libcudart.so.13", "libcudnn_graph.so", "libcudadevrt.a")
    headers = ("cuda_runtime_api.h", "cuda_fp16.hpp", "cudnn.h", "crt", "cub")
    assert {"bin/nvcc", *(f"lib64/{n}" for n in libraries), *(f"include/{n}" for n in headers)} <= names
    files = [p for p in linked.rglob("*") if p.is_file() and not p.is_symlink() and not p.parent.is_symlink()]
    assert files == [nvcc], "nothing is copied"
    assert (linked / "lib64/libcudnn.so").read_text() == "cudnn.so.9"
    assert subprocess.check_output([str(nvcc), "-x", "a b"], text=True) == "V13.0.88 -x a b\n"
    assert not nvcc.is_symlink(), "Jittor would look for libraries beside the file that a link points to"


def test_the_folder_of_links_is_made_once_and_again_when_a_piece_changes(toolkit, tmp_path):
    cache = tmp_path / "cache"
    first = assemble(toolkit, cache)
    before = first.stat().st_mtime_ns
    assert assemble(toolkit, cache) == first
    assert first.stat().st_mtime_ns == before
    (first.parent.parent / "lib64/libcudart.so").unlink()
    assert assemble(toolkit, cache) == first
    assert (first.parent.parent / "lib64/libcudart.so").exists()
    assert toolkit.cudnn is not None
    toolkit.cudnn.write_text("another release")
    assert assemble(toolkit, cache) != first
    assert [p.name for p in cache.iterdir() if p.name.startswith(".")] == []


def test_every_piece_can_be_found():
    """A piece without library and header would be found anywhere."""
    assert all(piece.library or piece.header for piece in PIECES)
    assert all(piece.links for piece in PIECES)


def test_the_patches_fit_the_installed_jittor():
    texts = patches.patched(patches.installed())
    assert "libcudnn_graph.so" in texts["compile_extern.py"]
    assert "clockRate" not in texts["extern/cuda/inc/helper_cuda.h"]
    assert all(p["why"] and p["old"] != p["new"] for p in patches.content()["patches"])


def test_a_patched_jittor_is_links_and_leaves_the_installed_one_alone(tmp_path):
    package = patches.installed()
    before = {file: (package / file).read_bytes() for file in patches.patched(package)}
    place = patches.present(tmp_path)
    assert patches.present(tmp_path) == place
    patched = place / "jittor"
    written = {str(p.relative_to(patched)) for p in patched.rglob("*") if p.is_file() and not p.is_symlink()}
    assert written == set(before)
    assert {file: (package / file).read_bytes() for file in before} == before
    assert os.readlink(patched / "__init__.py") == str(package / "__init__.py")
    assert not list(patched.rglob("*rnn*.cc")), "cuDNN 9 has nothing to compile them against"
    assert (package / "extern/cuda/cudnn/ops/cudnn_rnn_op.cc").exists()
    assert not list(patched.rglob("__pycache__"))


def test_another_version_of_jittor_is_not_patched(tmp_path, monkeypatch):
    monkeypatch.setattr(patches.metadata, "version", lambda name: "1.4.0")
    with pytest.raises(UserError, match=r"CUDA 13 needs Jittor 1\.3\.11\.0.*installed is 1\.4\.0"):
        patches.present(tmp_path)


def test_a_changed_jittor_is_not_patched(tmp_path, monkeypatch):
    package = tmp_path / "package"
    shutil.copytree(patches.installed(), package, ignore=shutil.ignore_patterns("__pycache__", "test"))
    compiler = package / "compiler.py"
    write(compiler, compiler.read_text().replace("max_arch = 90", "max_arch = 100"))
    monkeypatch.setattr(patches, "installed", lambda: package)
    with pytest.raises(UserError, match=r"do not fit the installed Jittor \(compiler\.py.*--force-reinstall"):
        patches.present(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_process_that_is_started_chooses_its_compiler_itself(monkeypatch):
    """Jittor's settings at its import, "no CUDA" or a folder of links, are not for them."""
    code = "import os\nfrom cpanet.runtime import prepare\nprepare('cpu')\nprint(os.environ.get('nvcc_path'))"
    monkeypatch.delenv("nvcc_path", raising=False)
    assert python(code).stdout == "None\n"
    assert python(code, nvcc_path="/some/nvcc").stdout == "/some/nvcc\n"
