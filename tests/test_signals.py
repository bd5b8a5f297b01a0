"""Signals reach the process they are meant for, and end those forked from it."""

from __future__ import annotations

import os
import signal
import time

from cpanet.signals import of_this_process


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
