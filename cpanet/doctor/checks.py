"""Checks as data: names, and what to run."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np


class CheckFailed(Exception):
    """A failed check, in one line; ``deviation`` where it measured one."""

    def __init__(self, message: str, deviation: float | None = None) -> None:
        super().__init__(message)
        self.deviation = deviation


class Seen(NamedTuple):
    """The finding of a check: one line, the largest deviation of the largest value where it measured one, and what is worth
    knowing though it is no failure."""

    detail: str
    deviation: float | None = None
    note: str = ""


def off_by(worst: float) -> Seen:
    """The usual line."""
    return Seen(f"deviation {worst:.0e}", worst)


Checks = dict[str, Callable[[], Seen]]  # by name; each returns what it saw, or raises


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check: ``detail`` when it went well, ``error`` and ``remedy`` when it did not."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""
    error: str = ""
    remedy: str = ""
    deviation: float | None = None
    note: str = ""


def run_check(name: str, check: Callable[[], Seen], remedy: str) -> CheckResult:
    """Runs one check. Whatever it raises is a failure of that check, and the user is told ``remedy``: an operator may fail
    in any way."""
    start = time.perf_counter()
    try:
        seen = check()
    except Exception as error:
        kind = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
        said, measured = one_line(kind + one_line(str(error))), getattr(error, "deviation", None)
        seconds = time.perf_counter() - start
        return CheckResult(name, False, seconds, error=said, remedy=remedy, deviation=measured)
    return CheckResult(name, True, time.perf_counter() - start, **seen._asdict())


def one_line(text: str, limit: int = 200) -> str:
    """The first line that says something, cut to ``limit`` characters; Jittor's own come after "reason:"."""
    text = re.sub(r"^\s*\[[a-z] [^]]*\]", "", re.split(r"[Rr]eason:", text)[-1])  # and without log prefix
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def require_close(what: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    """Largest deviation relative to the largest expected value; CheckFailed when beyond ``tolerance``.

    ``expected`` must not vanish: a comparison with zeros would pass for an operator that computes nothing.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        raise CheckFailed(f"{what} has shape {actual.shape}, expected {expected.shape}")
    scale = float(np.abs(expected).max())
    if scale == 0:
        raise ValueError(f"{what}: the reference is all zero, so the comparison would say nothing")
    if not np.isfinite(actual).all():
        raise CheckFailed(f"{what} is not finite")
    error = float(np.abs(actual - expected).max()) / scale
    if error <= tolerance:
        return error
    if not actual.any():
        raise CheckFailed(f"{what} is all zero (expected values up to {scale:.3g})", error)
    if actual.size > 1 and np.ptp(actual) <= 1e-6 * scale < np.ptp(expected):
        raise CheckFailed(
            f"{what} is the constant {actual.flat[0]:.3g} (expected values up to {scale:.3g})", error
        )
    raise CheckFailed(f"{what} is off by {error:.2g} of its largest value (allowed {tolerance:.0e})", error)
