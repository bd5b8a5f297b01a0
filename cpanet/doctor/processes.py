"""A process for each precision: CUDA's libraries are bound to one when loaded, and a crash takes only its own along."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from cpanet.doctor.checks import CheckResult
from cpanet.doctor.record import DoctorRecord

LIMIT = 2 * 3600  # seconds; with all kernels to compile a precision takes minutes


def command(device: str, precision: str, only: Sequence[str], verbose: bool) -> list[str]:
    """The doctor at one precision, which leaves out what the report says once (``--part``)."""
    words = [sys.executable, "-m", "cpanet.doctor", "--part", "--device", device, "--precision", precision]
    for text in only:
        words += ["--only", text]
    return [*words, "--verbose"] if verbose else words


def examine(precision: str, words: Sequence[str], record: DoctorRecord) -> CheckResult | None:
    """Run ``words``, which go on with the file of ``record``, given as ``--json``.

    Returns None where the process came to its end, else what became of it, as a failed check; it is in ``record`` then.
    """
    record.tell()
    try:
        status = subprocess.run([*words, "--json", str(record.path)], timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        status = -signal.SIGKILL
    record.read()
    if record.data["precisions"].get(precision, {"finished": False})["finished"]:
        return None
    lost = _lost(status, record.data)
    record.tell(error="")
    record.add(lost, precision)
    record.end(precision)
    return lost


def _lost(status: int, found: dict[str, Any]) -> CheckResult:
    """A process that ended before its checks did, by its status and by what it had written."""
    if found["error"]:
        return CheckResult("start", False, 0.0, error=found["error"])
    running = found["running"]
    how = f"with status {status}"
    if status < 0:
        try:
            how = f"by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            how = f"by signal {-status}"
    return CheckResult(
        running["name"] if running else "start",
        False,
        0.0,
        error=f"the process was ended {how}" + (" during this check" if running else ""),
        remedy="python -m cpanet.doctor --verbose shows Jittor's own log.",
    )
