"""The largest batch whose training step fits into memory, found by trying, each try in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

from benchmarks import measure
from benchmarks.workload import Workload
from cpanet.errors import UserError

LIMIT = {"cpu": 8, "cuda": 256}  # episodes; on a CPU more would only take longer
SECONDS = 180.0  # for one try: whatever does not end in time is not tried any larger


def search(fits: Callable[[int], bool], limit: int, start: int = 1) -> int:
    """The largest batch that fits, to an eighth of itself, at most ``limit``; 0 where not even ``start`` does.

    Doubles until it does not fit, then halves the interval in between. ``fits`` is asked about a batch at most once, and
    about few that do not fit: those take longest.
    """
    most, least = 0, limit + 1  # the largest that fits, the smallest that does not
    batch = min(start, limit)
    while batch < least and fits(batch):
        most, batch = batch, min(2 * batch, limit)
        if most == limit:
            return limit
    least = batch
    while most and least - most > max(1, most // 8):
        middle = (most + least) // 2
        most, least = (middle, least) if fits(middle) else (most, middle)
    return most


def find(
    side: str, asked: Workload, limit: int, log: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """``batch``: the largest that ``side`` can train with; ``tried``: what every try came to."""
    tried: dict[str, str] = {}

    def fits(batch: int) -> bool:
        log(f"{side}: batch {batch}")
        try:
            measure.run(side, "steps", replace(asked, batch=batch), timeout=SECONDS, warmup=1, repeats=1)
        except measure.OutOfMemory:
            tried[str(batch)] = "out of memory"
        except measure.TookTooLong:
            tried[str(batch)] = f"more than {SECONDS:.0f} s"
        else:
            tried[str(batch)] = "fits"
        return tried[str(batch)] == "fits"

    batch = search(fits, limit)
    if not batch:
        raise UserError(f"--batch largest: the {side} cannot train with a single episode ({tried}).")
    return {"batch": batch, "limit": limit, "tried": tried}
