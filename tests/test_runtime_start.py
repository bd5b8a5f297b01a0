"""Jittor as ``cpanet.runtime`` starts it, in processes of its own, from other folders."""

from __future__ import annotations

import fcntl
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from cpanet.errors import UserError
from cpanet.runtime import jt, locks, prepare, probe_cuda, versions
from tests.processes import environment, python

SUBNORMAL = """
from cpanet.runtime import jt
import numpy as np
small = np.full(100_000, 1e-38, np.float32)
print(abs(small * np.float32(1e-3)).max(), (jt.array(small) * 1e-3).numpy().max())
"""
THREADS = """
import ctypes, ctypes.util
from cpanet.runtime import prepare
omp = ctypes.CDLL(ctypes.util.find_library('gomp'))
prepare(threads=1); print(omp.omp_get_max_threads())
prepare(threads=3); print(omp.omp_get_max_threads())
"""
KILLED_CHILD = """
import subprocess, time
from cpanet.runtime import jt
jt.ones((1,)).sync()
child = subprocess.Popen(['sleep', '60']); child.kill(); child.wait()
time.sleep(0.2); print('alive')
"""
# home untouched even when an operator is compiled, certificates checked, no compiler processes left
SIDE_EFFECTS = f"""
import multiprocessing, os, signal, ssl
from cpanet.runtime import jt
assert os.environ['HOME'] == os.getcwd()
assert ssl._create_default_https_context is ssl.create_default_context
assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
assert jt.code((1,), 'float32', cpu_src='@out(0) = {time.time_ns() % 10**6};').item() >= 0  # no cache has it
print(multiprocessing.active_children(), os.listdir('.'))
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(
            "import sys, cpanet.runtime as r; r.probe_cuda(); r.versions(); print('jittor' in sys.modules)",
            "False\n",
            id="importing the package imports no Jittor",
        ),
        pytest.param(
            "from cpanet.runtime import jt; print(jt.ones((2,)).sum().item())",
            "2.0\n",
            id="Jittor computes and says nothing",
        ),
        pytest.param(THREADS, "1\n3\n", id="threads are set"),
        pytest.param(SIDE_EFFECTS, "[] []\n", id="side effects of Jittor are undone"),
        pytest.param(KILLED_CHILD, "alive\n", id="a killed child does not end the process"),
        # or results would depend on which operators have been loaded, and a resumed run would end otherwise
        pytest.param(SUBNORMAL, "0.0 0.0\n", id="subnormal numbers are zero from the start"),
    ],
)
def test_a_process(code, said, tmp_path):
    done = python(code, tmp_path, HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_prepare_is_idempotent_and_describes_itself():
    first = prepare()
    assert prepare() is first
    assert first.device in ("cpu", "cuda")
    assert bool(first.why_not_cuda) == (first.device == "cpu")
    assert first.versions["jittor"] == versions()["jittor"] == jt.__version__
    assert (first.cache_home / "cpanet").is_dir()


def test_unknown_device_is_refused():
    with pytest.raises(UserError, match="Unknown device: 'gpu'"):
        prepare("gpu")


def test_cuda_where_there_is_none(tmp_path):
    if probe_cuda().usable:
        pytest.skip("CUDA is usable here")
    with pytest.raises(UserError, match="device=cuda cannot be used"):
        prepare("cuda")
    code = (
        "from cpanet.errors import UserError\nfrom cpanet.runtime import prepare, probe_cuda\n"
        "try: prepare('cuda')\nexcept UserError as e: print(probe_cuda().reason in str(e))"
    )
    assert python(code, tmp_path).stdout == "True\n"


def test_onednn_is_used_on_cpu():
    if prepare().onednn is None:
        pytest.skip("the oneDNN wheels are not installed here")
    assert jt.compile_extern.mkl_ops is not None


def test_missing_compiler_is_one_sentence(tmp_path):
    result = python("from cpanet.runtime import prepare\nprepare()", tmp_path, PATH=str(tmp_path), cc_path="")
    assert result.stderr.strip().splitlines()[-1].endswith("Install it: apt install g++")


def test_ctrl_c_reaches_python(tmp_path):
    code = (
        # a shell that starts the tests in the background makes its children ignore Ctrl-C
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cpanet.runtime import jt\njt.ones((1,)).sync()\n"
        "try:\n    print('ready', flush=True)\n    for _ in range(600): time.sleep(0.1)\n"
        "except KeyboardInterrupt: print('clean end')"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "clean end\n"


def test_operator_progress_is_dropped_and_messages_pass(tmp_path):
    """Jittor's output while it compiles operators, through the real std::cerr."""
    source = tmp_path / "say.cc"
    source.write_text(
        "#include <iostream>\n"
        'extern "C" void say() {\n'
        '  std::cerr << "before" << std::endl;\n'
        '  std::cerr << "\\n";\n'
        "  for (int i = 1; i < 4; i++)\n"
        '    std::cerr << "Compiling Operators(" << i << "/" << 3 << ")" << " used: " << 2.5 << "s eta: "\n'
        '              << 1 << "s \\r";\n'
        "  std::cerr << std::endl;\n"
        '  std::cerr << "an error " << 7 << "\\n\\nwith a gap\\n";\n'
        '  std::cerr << "\\n" << "kept empty line" << std::endl;\n'
        "}\n"
    )
    library = tmp_path / "say.so"
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    say = f"import ctypes; ctypes.CDLL({str(library)!r}).say()"
    loud = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert "Compiling Operators(2/3)" in loud.stderr
    quiet = python(f"from cpanet.runtime import jt; {say}", tmp_path)
    assert quiet.stderr == "before\nan error 7\n\nwith a gap\n\nkept empty line\n"


def test_jittors_own_lock_is_waited_for(tmp_path):
    file = tmp_path / "lock"
    own, others = file.open("w"), file.open("w")  # as jittor_utils.lock opens it
    jittor_lock = SimpleNamespace(handle=own, is_locked=False)
    locks.limit_waits(module := SimpleNamespace(jittor_lock=jittor_lock, disable_lock=False))
    with own, others:
        fcntl.flock(others, fcntl.LOCK_EX)
        waiting = threading.Thread(target=module.jittor_lock.lock)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        fcntl.flock(others, fcntl.LOCK_UN)
        waiting.join(60)
    assert jittor_lock.is_locked


@pytest.mark.slow
def test_two_processes_on_an_empty_cache(tmp_path):
    code = "from cpanet.runtime import jt; print(jt.nn.Conv(3, 4, 3)(jt.ones((1, 3, 8, 8))).numpy().shape)"
    environ = environment(JITTOR_HOME=str(tmp_path / "home"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environ, text=True, **pipes)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out for out, _ in outputs] == ["(1, 4, 6, 6)\n"] * 2
    said = sorted(err for _, err in outputs)
    assert said[0].startswith("Compiling Jittor for this machine, once")
    waits, *more = said[1].splitlines()
    assert waits == "Waiting for another process that is compiling Jittor…"
    # on a slow machine, after a minute, also for whom
    assert all(re.fullmatch(r"Waiting for .*import\.lock, held by process \d+…", line) for line in more)
    again = python(code, tmp_path, JITTOR_HOME=str(tmp_path / "home"))
    assert (again.returncode, again.stderr) == (0, "")  # not compiled again
