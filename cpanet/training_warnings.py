"""Numbers that look as if the machine, not the method, were at fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpanet.metrics import Counts

FEWEST = 10  # losses that can be said to be all the same
ENOUGH = 100  # losses that can be said not to fall
DOCTOR = "python -m cpanet.doctor tells whether this machine computes and learns as it should."


def one_class(counts: Sequence[Counts], defect: int) -> str | None:
    """A warning where every pixel of an evaluation was predicted the same; ``defect``: pixels that are labelled so."""
    hit, union, background_hit, _ = (int(n) for n in np.asarray(counts, np.int64).sum(axis=0))
    wrong = union - hit
    marked = hit + wrong - (defect - hit)  # hits, and background taken for defect
    if 0 < marked < hit + wrong + background_hit:
        return None
    return (
        f"every pixel of the {len(counts)} test episodes is predicted as {'defect' if marked else 'background'}. "
        f"The paper's recipe begins so, for a thousand iterations or more; anywhere else something is wrong: {DOCTOR}"
    )


def not_moving(losses: Sequence[float], starts_low: bool = False) -> str | None:
    """A warning where the losses of a run, in order, are all the same or have not fallen beyond their noise.

    ``starts_low``: the network starts near the training-free baseline (a residual prior), so that a loss which does not
    fall beyond the noise of its episodes is no sign of a fault.
    """
    values = np.asarray(losses, np.float64)
    if len(values) >= FEWEST and np.ptp(values) <= 1e-6 * abs(values.mean()):
        return (
            f"the loss has been {values[0]:.6g} for all {len(values)} iterations: nothing is learnt. {DOCTOR}"
        )
    if starts_low or len(values) < ENOUGH:
        return None
    quarter = len(values) // 4
    first, last = values[:quarter], values[-quarter:]
    noise = np.sqrt((first.var() + last.var()) / quarter)
    if first.mean() - last.mean() > 2 * noise:
        return None
    return (
        f"the loss has not fallen in {len(values)} iterations: {first.mean():.4f} in the first quarter, "
        f"{last.mean():.4f} in the last. {DOCTOR}"
    )
