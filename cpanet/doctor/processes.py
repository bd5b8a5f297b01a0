"""A process for each precision: CUDA's libraries are bound to one when loaded, and a crash takes only its own along."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cpanet.doctor.checks import CheckResult
from cpanet.doctor.record import DoctorRecord, read_record

LOOK_EVERY = 0.5  # seconds
GRACE = 10.0  # seconds for a process to end once it was asked to


def command(device: str, precision: str, only: Sequence[str], verbose: bool) -> list[str]:
    """The doctor at one precision, which leaves out what the report says once (``--part``)."""
    words = [sys.executable, "-m", "cpanet.doctor", "--part", "--device", device, "--precision", precision]
    for text in only:
        words += ["--only", text]
    return [*words, "--verbose"] if verbose else words


def examine(precision: str, words: Sequence[str], record: DoctorRecord) -> CheckResult | None:
    """Run ``words``, which write a record of their own where ``--json`` says, and take over what is found as it is found.

    Returns None where the process came to its end, else what became of it, as a failed check; it is in ``record`` then.
    """
    with tempfile.TemporaryDirectory(prefix="cpanet-doctor-") as folder:
        file = Path(folder) / "record.json"
        process = subprocess.Popen([*words, "--json", str(file)])
        try:
            while process.poll() is None:
                try:
                    process.wait(LOOK_EVERY)
                except subprocess.TimeoutExpired:
                    _take(file, precision, record)
        finally:
            if process.poll() is None:
                _stop(process)
        found = _take(file, precision, record)
    if found is not None and found["finished"] and precision in found["precisions"]:
        record.end(precision)
        return None
    result = _lost(process.returncode, found)
    record.add(result, precision)
    record.end(precision)
    return result


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(GRACE)


def _take(file: Path, precision: str, record: DoctorRecord) -> dict | None:
    found = read_record(file)
    if found is not None:
        record.take(found, precision)
    return found


def _lost(code: int, found: dict | None) -> CheckResult:
    """A process that ended before its checks did, by its status and by what it had written."""
    if found is not None and found["error"]:
        return CheckResult("start", False, 0.0, error=found["error"], remedy="")
    running = found["running"] if found is not None else None
    how = f"with status {code}"
    if code < 0:
        try:
            how = f"by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            how = f"by signal {-code}"
    return CheckResult(
        running["name"] if running else "start",
        False,
        0.0,
        error=f"the process was ended {how}" + (" during this check" if running else ""),
        remedy="python -m cpanet.doctor --verbose shows Jittor's own log.",
    )
