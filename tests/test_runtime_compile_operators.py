"""Jittor's compiling threads, of which one at a time looks at the graph."""

from __future__ import annotations

import ctypes
import hashlib
import re
import threading
from types import SimpleNamespace

import pytest

from benchmarks import compiling
from cpanet.runtime import prepare
from cpanet.runtime.compile_operators import compile_operators_safely, header_flags, wait_for_threads
from tests.processes import python

prepare("cpu")


def test_the_hook_is_in_its_place():
    import jittor_core

    core = ctypes.CDLL(jittor_core.__file__)
    assert ctypes.c_void_p.in_dll(core, "_ZN6jittor15do_compile_hookE").value


def test_an_operator_that_does_not_compile_is_an_error_as_before():
    # in a new process: one that has compiled nothing for long compiles without the threads
    ended = python(
        """
import time
from cpanet.runtime import jt
source = f"@out(0) = no_such_function_{time.time_ns()}();"  # no cache has it
try:
    jt.code((1,), "float32", cpu_src=source).sync()
except RuntimeError as error:
    print(error)
print("then", jt.code((1,), "float32", cpu_src=f"@out(0) = 1 + {time.time_ns()} % 1000;").item() > 0)
"""
    )
    assert re.search(r"(?s)Compile operator.*failed.*then True", ended.stdout), ended


def test_one_operator_after_the_other_where_the_hook_cannot_be_compiled(tmp_path):
    jittor = SimpleNamespace(flags=SimpleNamespace(cc_flags="-std=c++14", use_parallel_op_compiler=16))
    compile_operators_safely(jittor, tmp_path, "/bin/false")
    assert jittor.flags.use_parallel_op_compiler == 1


def test_headers_are_read_with_the_flags_that_concern_them():
    flags = header_flags('-Wall -std=c++14 -fPIC -shared -I"/a b/src" -L"/lib" -l"core" -DHAS_CUDA -Ofast')
    assert flags == ("-std=c++14", "-I/a b/src", "-DHAS_CUDA")


def test_the_exit_waits_for_threads_that_still_run():
    busy = threading.Thread(
        target=hashlib.pbkdf2_hmac, args=("sha256", b"a", b"b", 3_000_000)
    )  # without the GIL
    busy.start()
    wait_for_threads(0.05)
    assert busy.is_alive()  # not for ever
    wait_for_threads(120)
    busy.join(0.2)
    assert not busy.is_alive()


@pytest.mark.slow
def test_no_process_dies_while_it_compiles():
    """Of 150 processes without the hook 7 died, so 40 would all live by chance in one of seven tries."""
    assert [error for status, error in compiling.ends(40) if status] == []
