"""``python -m tests.faulty WHERE N <arguments of run.py>``: a run that is killed in its N-th writing of a checkpoint.

WHERE: ``half`` when half of the file is written, ``whole`` when it has not got its name yet, ``named`` right after, or
``never``: then it says "started" when training can begin, for a parent that kills it at a moment of its own.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

from tests.shared import REPO


def main() -> None:
    where, number = sys.argv[1], int(sys.argv[2])
    sys.argv = ["run.py", *sys.argv[3:]]
    from cpanet.records.tensorboard import TensorBoard

    hyperparameters = TensorBoard.hyperparameters

    def started(self: Any, *arguments: Any) -> Any:
        print("started", flush=True)
        return hyperparameters(self, *arguments)

    TensorBoard.hyperparameters = started  # type: ignore[method-assign]
    fsync, replace, written = os.fsync, os.replace, 0

    def dying_fsync(fd: int) -> None:
        nonlocal written
        if ".safetensors." in os.readlink(f"/proc/self/fd/{fd}"):
            written += 1
            if written == number and where == "half":
                os.truncate(
                    os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size // 2
                )  # fd may be read-only
                os.kill(os.getpid(), signal.SIGKILL)
        fsync(fd)

    def dying_replace(source: Any, target: Any) -> None:
        due = written == number and str(source).endswith(".tmp") and ".safetensors." in str(source)
        if due and where == "whole":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if due and where == "named":
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync, os.replace = dying_fsync, dying_replace  # type: ignore[assignment]
    runpy.run_path(str(REPO / "run.py"), run_name="__main__")


if __name__ == "__main__":
    main()
