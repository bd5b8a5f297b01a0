"""Files of Jittor's cache that are not whole, and locks that somebody else holds."""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpanet.errors import UserError
from cpanet.runtime import cache_repair, locks, prepare
from cpanet.runtime.libraries import is_whole
from tests.processes import environment, python

SECTIONS = 9


def library(size: int = 5000) -> bytes:
    """The frame of an ELF file: a header that says where the table of sections is, and the table at the end."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 40, size - 64 * SECTIONS)
    struct.pack_into("<HH", head, 58, 64, SECTIONS)
    return bytes(head) + bytes(size - 64)


DAMAGED = {
    "empty": b"",
    "the beginning of a header": library()[:5],
    "half a header": library()[:40],
    "half": library()[:2500],
    "all but the last byte": library()[:-1],
    "zeros, of a machine that lost its power": bytes(5000),
    "no table yet": library()[:40] + bytes(4960),
    "text": b"#!/bin/sh\n" * 500,
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Jittor's cache with whole files and their keys."""
    folder = tmp_path / "default"
    for name in ("jit/a_op.so", "jit/b_op.so", "obj_files/c.cc.o", "custom_ops/d.so", "jittor_core.abi.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(library())
        (folder / f"{name}.key").write_text("g++ …")
    (folder / "data.o").write_bytes(library())
    (folder / "data.md5").write_text("0123")
    (folder / "jit" / "a_op.cc").write_text("")
    (tmp_path / "jittor.lock").touch()
    return folder


def contents(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["jit/b_op.so", "obj_files/c.cc.o", "custom_ops/d.so", "data.o"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_is_not_whole_goes_with_its_key(name, damage, cache, capfd):
    before = contents(cache)
    (cache / name).write_bytes(DAMAGED[damage])
    assert cache_repair.repair(cache, cache.parent / "jittor.lock") == [cache / name]
    key = "data.md5" if name == "data.o" else f"{name}.key"
    assert contents(cache) == {k: v for k, v in before.items() if k not in (name, key)}
    assert "not whole: 1. Compiling them again" in capfd.readouterr().err


def test_whole_files_stay_and_nothing_is_said(cache, capfd):
    # without a key: just being written, or compiled again anyway
    (cache / "jit" / "c_op.so").write_bytes(b"")
    (cache / "jit" / "b_op.so.key").write_bytes(b"")  # fits nothing
    before = contents(cache)
    assert cache_repair.repair(cache, cache / "no lock is asked for") == []
    assert contents(cache) == before
    assert capfd.readouterr() == ("", "")


def test_the_library_that_reads_keys_is_loaded_without_one(cache):
    core = cache / "jit_utils_core.abi.so"
    core.write_bytes(library()[:3000])
    assert cache_repair.repair(cache, cache.parent / "jittor.lock") == [core]
    assert not core.exists()


def test_a_real_library_is_whole_until_it_is_cut(tmp_path):
    source, built = tmp_path / "a.cc", tmp_path / "a.so"
    source.write_text("int answer() { return 42; }")
    for flags in (("-shared", "-fPIC"), ("-c",)):
        subprocess.run(["g++", *flags, str(source), "-o", str(built)], check=True)
        assert is_whole(built)
        built.write_bytes(built.read_bytes()[:-1])
        assert not is_whole(built)
    assert is_whole(tmp_path / "nothing")


# ------------------------------------------------------------------ locks

HOLD = (
    "import fcntl, sys, time\nhandle = open(sys.argv[1], 'a')\n"
    "getattr(fcntl, sys.argv[2])(handle, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)"
)


@contextmanager
def held(lock: Path, how: str) -> Iterator[int]:
    """Another process that holds a lock and hangs; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "REPORT_SECONDS", 0.1)
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.6)


@pytest.mark.parametrize(("name", "how"), [("jit/b_op.so", "lockf"), ("obj_files/c.cc.o", "flock")])
def test_nothing_goes_while_another_process_compiles(name, how, cache, impatient, capfd):
    lock = cache.parent / "jittor.lock"
    (cache / name).write_bytes(b"")
    with held(lock, how) as process, pytest.raises(UserError, match=f"held by process {process} for 0 min"):
        cache_repair.repair(cache, lock)
    assert (cache / f"{name}.key").exists()
    assert capfd.readouterr().err == f"Waiting for {lock}, held by process {process}…\n"
    assert cache_repair.repair(cache, lock) == [cache / name]


def test_what_is_finished_in_the_meantime_stays(cache, monkeypatch):
    file = cache / "jit" / "b_op.so"
    file.write_bytes(b"")
    monkeypatch.setattr(cache_repair, "wait_for", lambda handle, take: file.write_bytes(library()))
    assert cache_repair.repair(cache, cache.parent / "jittor.lock") == []
    assert file.read_bytes() == library()


def test_the_lock_of_an_import_is_told_and_given_up(tmp_path, impatient, capfd):
    with locks.import_lock(tmp_path):
        pass
    lock = locks.own_folder(tmp_path) / "import.lock"
    refused = pytest.raises(UserError, match="or set JITTOR_HOME")
    with held(lock, "flock") as process, refused, locks.import_lock(tmp_path):
        pass
    assert capfd.readouterr().err == f"Waiting for {lock}, held by process {process}…\n"


def test_a_holder_that_the_kernel_does_not_name(tmp_path, monkeypatch):
    with open(tmp_path / "lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        monkeypatch.setattr(locks, "KERNEL_LIST", tmp_path / "none")
        assert locks.holder(handle) == "another process"


# ------------------------------------------------------------------ Jittor itself

IMPATIENT = "from cpanet.runtime import locks\nlocks.REPORT_SECONDS, locks.LOCK_SECONDS = 1.0, 3.0\n"
OPERATOR = """
from cpanet.runtime import jt
print(jt.code((1,), "float32", cpu_src="@out(0) = {number};").item())
"""


def run(number: int, before: str = "") -> subprocess.CompletedProcess[str]:
    """A process that computes ``number`` with an operator of its own, in the cache of these tests."""
    return python(before + OPERATOR.format(number=number))


def cache_in_use() -> Path:
    prepare()
    return Path(importlib.import_module("jittor_utils").cache_path)


def kernel(number: int) -> Path:
    """The compiled operator that gives ``number``."""
    sources = (cache_in_use() / "jit").glob("*_op.cc")
    (found,) = [path for path in sources if f"= {number};" in path.read_text()]
    return found.with_suffix(".so")


def test_an_operator_waits_for_a_process_that_hangs_and_gives_up():
    """Jittor's wait in C++: Python stands still in it."""
    lock = cache_in_use().parent / "jittor.lock"
    with held(lock, "lockf") as process:
        ended = run(time.time_ns() % 10**6, IMPATIENT)
    said = ended.stderr.splitlines()
    assert said[0] == f"Waiting for {lock}, held by process {process}…"
    ended_by = f"error: {lock} has been held by process {process} for 0 minutes. End that process"
    assert said[1].startswith(ended_by)
    assert (ended.returncode, ended.stdout, len(said)) == (2, "", 2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 100])
def test_a_kernel_of_a_warm_cache_that_was_cut(size):
    number = time.time_ns() % 10**6
    assert run(number).stdout == f"{number}.0\n"
    os.truncate(kernel(number), size)
    repaired, again = run(number), run(number)
    assert (repaired.returncode, repaired.stdout) == (0, f"{number}.0\n")
    assert repaired.stderr == "Files of Jittor's cache that are not whole: 1. Compiling them again…\n"
    assert (again.stdout, again.stderr) == (f"{number}.0\n", "")


@pytest.mark.slow
def test_sigkill_while_an_operator_is_compiled():
    """At ten moments, from the writing of its source to its being there; its compiler is killed with it, or not."""
    lock = cache_in_use().parent / "jittor.lock"
    for moment in range(10):
        number = time.time_ns() % 10**6
        command = [sys.executable, "-c", OPERATOR.format(number=number)]
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
        )
        with open(lock) as handle:
            deadline = time.monotonic() + 60
            while locks.holder(handle) != f"process {process.pid}":
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
        time.sleep(0.15 * moment)
        (os.killpg if moment % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        assert run(number).stdout == f"{number}.0\n"
