"""Whether both sides compute the same: logits, losses, the gradient of every parameter."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import SIDES, run
from benchmarks.workload import Workload
from cpanet.errors import UserError

# Biases in front of a BatchNorm or inside a softmax have no gradient but rounding: a parameter whose gradient
# is this much smaller than all gradients together is compared on the scale of all.
NOISE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """Differences of the project from the reference in float64.

    Logits over the largest logit, losses and gradients (as vectors, one a parameter) relative.
    """

    logits: float
    losses: float
    gradients: float
    worst_gradient: str

    @property
    def worst(self) -> float:
        return max(self.logits, self.losses, self.gradients)


def compare(project: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> Agreement:
    """Differences of two sides' outputs; UserError where they do not even have the same tensors."""
    odd = set(project.keys() ^ reference.keys())
    odd |= {
        n
        for n in project.keys() & reference.keys()
        if project[n].squeeze().shape != reference[n].squeeze().shape
    }
    if odd:
        raise UserError(f"The two sides have different tensors: {', '.join(sorted(odd))}.")
    largest = np.abs(reference["logits"]).max()
    logits = np.abs(project["logits"] - reference["logits"]).max() / largest
    names = ("main loss", "auxiliary loss")
    losses = max(abs(project[n].item() - reference[n].item()) / abs(reference[n].item()) for n in names)
    norms = {n: float(np.linalg.norm(g)) for n, g in reference.items() if n not in ("logits", *names)}
    floor = NOISE * float(np.linalg.norm(list(norms.values())))
    gradients: dict[str, float] = {
        n: float(np.linalg.norm(project[n].ravel() - reference[n].ravel()) / max(norm, floor))
        for n, norm in norms.items()
    }
    worst = max(gradients, key=lambda name: gradients[name])
    return Agreement(float(logits), float(losses), gradients[worst], worst)


def check(workload: Workload, tolerance: float) -> Agreement:
    """Both sides once without dropout, compared; UserError where they differ by more than ``tolerance``."""
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        outputs = []
        for side in SIDES:
            file = Path(folder, f"{side}.npz")
            run(side, "check", workload, to=str(file))
            with np.load(file) as stored:
                outputs.append(dict(stored))
    found = compare(*outputs)
    if not found.worst <= tolerance:  # NaN must not pass
        raise UserError(f"The two sides do not compute the same, timings would mean nothing: {found}.")
    return found
