"""Signals reach the process they are meant for, and end those forked from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from cpanet.signals import of_this_process, stop_signals
from tests.shared import REPO


def test_a_forked_process_ends_where_its_parent_handles_the_signal() -> None:
    handled = []
    before = signal.signal(signal.SIGTERM, of_this_process(lambda number, frame: handled.append(number)))
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [signal.SIGTERM]


def test_the_first_signal_is_a_request_and_a_further_sigterm_too() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    said: list[str] = []
    with stop_signals(said.append) as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # Ctrl-C now ends the process
    assert said == ["stopping after this step; Ctrl-C to stop at once"]
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_second_ctrl_c_ends_at_once_also_in_the_middle_of_a_kernel() -> None:
    code = (
        "import ctypes, signal\nfrom cpanet.signals import stop_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with stop_signals():\n"
        "    print('ready', flush=True)\n"
        "    sleep = ctypes.PyDLL(None).usleep\n"  # holds the interpreter, as Jittor does
        "    for _ in range(3): sleep(20_000_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT
    assert time.monotonic() - start < 5
