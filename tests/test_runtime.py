"""Steps before ``import jittor``: compiler, headers, home, oneDNN, environment."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from cpanet.errors import UserError
from cpanet.runtime import environment, home, locks, onednn, processor, quiet, toolchain
from tests.shared import REPO

# ------------------------------------------------------------------ toolchain


def test_missing_compiler_names_the_package(tmp_path):
    with pytest.raises(UserError, match=r"apt install g\+\+$"):
        toolchain.find_compiler({"PATH": str(tmp_path)})


def test_missing_headers_name_the_package(tmp_path):
    with pytest.raises(UserError, match=r"Python\.h .*apt install python3-dev"):
        toolchain.find_headers([tmp_path])


def test_python_config_answers_for_this_interpreter(tmp_path):
    headers = toolchain.find_headers()
    script = toolchain.python_config(headers, tmp_path / "a b", candidates=[])
    assert script is not None

    def ask(question: str) -> str:
        return subprocess.check_output([str(script), question], text=True).strip()

    assert ask("--includes") == f'-I"{headers}"'
    assert ask("--extension-suffix").startswith(f".cpython-3{sys.version_info.minor}")


def test_python_config_of_the_system_is_left_alone(tmp_path):
    there = tmp_path / "python3-config"
    there.write_text("")
    assert toolchain.python_config(Path("/x"), tmp_path, candidates=[there]) is None


def test_version_of_a_compiler(tmp_path):
    tool = tmp_path / "nvcc"
    tool.write_text(
        "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\necho 'Build cuda_13.0.r13.0'\n"
    )
    tool.chmod(0o755)
    assert toolchain.tool_version(str(tool)) == "13.0.88"
    assert toolchain.tool_version(str(tmp_path / "none")) == "unknown"


# ------------------------------------------------------------------ home


def test_home_is_what_was_asked_for_else_the_users(tmp_path):
    assert home.choose_home({"JITTOR_HOME": str(tmp_path / "new"), "HOME": "/proc"}) == tmp_path / "new"
    assert home.choose_home({"HOME": str(tmp_path)}) == tmp_path


def test_home_asked_for_but_unwritable_is_an_error():
    with pytest.raises(UserError, match="JITTOR_HOME cannot be written: /proc/none"):
        home.choose_home({"JITTOR_HOME": "/proc/none"})


def test_read_only_home_falls_back_to_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(home.tempfile, "tempdir", str(tmp_path))
    chosen = home.choose_home({"HOME": "/proc/none"})
    assert chosen.parent == tmp_path
    assert chosen.stat().st_mode & 0o777 == 0o700


def test_fallback_that_others_may_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(home.tempfile, "tempdir", str(tmp_path))
    trap = tmp_path / f"cpanet-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    with pytest.raises(UserError, match="Set JITTOR_HOME"):
        home.choose_home({"HOME": "/proc/none"})


def test_import_lock_excludes_another_process(tmp_path):
    code = (
        "import sys, pathlib\nfrom cpanet.runtime import locks\n"
        "with locks.import_lock(pathlib.Path(sys.argv[1])): print('inside', flush=True)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locks.import_lock(tmp_path):
        other = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=1.5)
    assert other.communicate(timeout=30)[0] == "inside\n"


# ------------------------------------------------------------------ oneDNN


def make_wheels(root: Path) -> onednn.Wheels:
    include, lib = root / "include", root / "lib"
    (include / "oneapi" / "dnnl").mkdir(parents=True)
    lib.mkdir()
    for name in ("dnnl.hpp", "dnnl.h", "unrelated.h", "oneapi/dnnl/dnnl.hpp"):
        (include / name).write_text(name)
    (lib / "libdnnl.so.2").write_text(f"library of {root.name}")
    return onednn.Wheels(lib / "libdnnl.so.2", include)


def presented(cache: Path) -> Path:
    return cache / "mkl" / onednn.EXPECTED_NAME


def test_wheels_of_this_environment_are_found():
    wheels = onednn.find_wheels()
    if wheels is None:
        pytest.skip("the oneDNN wheels are not installed here")
    assert wheels.library.stat().st_size > 1e6
    assert (wheels.include / "oneapi" / "dnnl" / "dnnl.hpp").is_file()


def test_wheels_appear_where_jittor_looks(tmp_path):
    wheels = make_wheels(tmp_path / "prefix")
    cache = tmp_path / "cache"
    assert onednn.present(cache, wheels) == wheels.library
    place = presented(cache)
    for name in ("lib/libmkldnn.so", "lib/libdnnl.so.2", "include/dnnl.hpp", "include/oneapi/dnnl/dnnl.hpp"):
        assert (place / name).is_file()
    assert not (place / "include" / "unrelated.h").exists()
    # Jittor takes the first folder that starts with "dnnl"
    assert [p.name for p in place.parent.iterdir() if p.name.startswith("dnnl")] == [onednn.EXPECTED_NAME]
    assert onednn.present(cache, wheels) == wheels.library


def test_links_follow_the_wheels_to_another_place(tmp_path):
    cache = tmp_path / "cache"
    onednn.present(cache, make_wheels(tmp_path / "old"))
    new = make_wheels(tmp_path / "new")
    assert onednn.present(cache, new) == new.library
    assert (presented(cache) / "lib" / "libmkldnn.so").read_text() == "library of new"


def test_a_download_of_somebody_else_is_used_and_kept(tmp_path):
    place = presented(tmp_path)
    (place / "lib").mkdir(parents=True)
    (place / "include").mkdir()
    (place / "include" / "dnnl.hpp").write_text("theirs")
    (place / "lib" / "libmkldnn.so").write_text("theirs")
    used = onednn.present(tmp_path, make_wheels(tmp_path / "prefix"))
    assert used == place / "lib" / "libmkldnn.so"
    assert used.read_text() == "theirs"
    assert not place.is_symlink()


def test_a_broken_download_is_moved_aside_not_deleted(tmp_path):
    place = presented(tmp_path)
    place.mkdir(parents=True)
    (place / "README").write_text("half unpacked")
    wheels = make_wheels(tmp_path / "prefix")
    assert onednn.present(tmp_path, wheels) == wheels.library
    kept = [p for p in place.parent.iterdir() if p.name.startswith("broken")]
    assert [(p / "README").read_text() for p in kept] == ["half unpacked"]


def test_no_wheels_no_onednn(tmp_path):
    assert onednn.present(tmp_path, None) is None


# ------------------------------------------------------------------ environment and threads


PATCHED = {"package": Path("/cache/jittor-0123")}
NOTHING_ELSE = dict.fromkeys(("use_cutt", "use_cutlass", "use_nccl", "use_mpi"), "0")


@pytest.mark.parametrize(
    ("environ", "settings", "expected"),
    [
        (
            {},
            {},
            {"nvcc_path": "", "cache_name": "default", "JITTOR_HOME": "/h", "use_mkl": "1", **NOTHING_ELSE},
        ),
        ({}, {"onednn": False}, {"use_mkl": "0"}),  # else Jittor would download it
        ({"use_mkl": "0"}, {}, {"use_mkl": "0"}),
        ({}, {"nvcc": Path("/cuda/bin/nvcc")}, {"nvcc_path": "/cuda/bin/nvcc"}),
        ({}, {}, {"log_silent": "1"}),
        ({}, {"verbose": True}, {"log_silent": "0"}),
        ({}, {"threads": 3}, {"OMP_NUM_THREADS": "3"}),
        ({"OMP_NUM_THREADS": "5"}, {}, {"OMP_NUM_THREADS": "5"}),
        ({}, {}, {"OMP_NUM_THREADS": str(processor.available_cpus())}),
        # a patched Jittor has a cache of its own
        ({}, PATCHED, {"cache_name": "default+jittor-0123"}),
        ({"cache_name": "mine"}, PATCHED, {"cache_name": "mine+jittor-0123"}),
        # in a process that was started by one on the other device
        ({"cache_name": "mine+jittor-0123"}, {}, {"cache_name": "mine"}),
        ({"cache_name": "default+jittor-4567"}, PATCHED, {"cache_name": "default+jittor-0123"}),
    ],
)
def test_environment_of_jittor(environ, settings, expected):
    usual = {"home": Path("/h"), "compiler": "/usr/bin/g++", "nvcc": None, "onednn": True}
    chosen = environment.jittor_environment(environ, **{**usual, **settings})
    assert {name: chosen[name] for name in expected} == expected


@pytest.mark.parametrize(("text", "cpus"), [("100000 100000", 1), ("max 100000", None), ("150000 100000", 2)])
def test_container_quota_bounds_the_threads(tmp_path, monkeypatch, text, cpus):
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda pid: set(range(64)))
    (tmp_path / "cpu.max").write_text(text)
    assert processor.available_cpus((tmp_path / "cpu.max",)) == (cpus or 64)


@pytest.mark.parametrize("busy", [False, True])
def test_the_pool_of_compilers_ends_and_is_not_waited_for_without_end(busy, monkeypatch):
    pool = multiprocessing.get_context("spawn").Pool(1)
    utils = types.SimpleNamespace(pool_size=1, p=pool, pool_cleanup=lambda: None)
    monkeypatch.setattr(quiet, "POOL_SECONDS", 1.0 if busy else 30.0)
    assert pool.apply(abs, (-1,)) == 1
    if busy:
        pool.apply_async(time.sleep, (600,))
    start = time.monotonic()
    quiet.stop_compile_pool(utils)
    assert time.monotonic() - start < 20
    assert (utils.pool_size, hasattr(utils, "p")) == (0, False)
    pool.terminate()
