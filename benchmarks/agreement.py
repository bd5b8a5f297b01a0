"""Whether both sides compute the same: logits, losses, the gradient of every parameter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import run
from benchmarks.workload import Workload
from cpanet.errors import UserError

# Biases in front of a BatchNorm or inside a softmax have no gradient but rounding: a parameter whose gradient
# is this much smaller than all gradients together is compared on the scale of all.
NOISE = 1e-4


class Agreement(NamedTuple):
    """Differences of the project from the reference in float64.

    Logits over the largest logit, losses and gradients (as vectors, one a parameter) relative.
    """

    logits: float
    losses: float
    gradients: float
    worst_gradient: str


def compare(project: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> Agreement:
    """Differences of two sides' outputs; UserError where they do not even have the same tensors."""
    shapes = [{n: array.squeeze().shape for n, array in side.items()} for side in (project, reference)]
    odd = {name for name, _ in shapes[0].items() ^ shapes[1].items()}
    if odd:
        raise UserError(f"The two sides have different tensors: {', '.join(sorted(odd))}.")
    largest = np.abs(reference["logits"]).max()
    logits = np.abs(project["logits"] - reference["logits"]).max() / largest
    names = ("main loss", "auxiliary loss")
    losses = max(abs(project[n].item() - reference[n].item()) / abs(reference[n].item()) for n in names)
    gradients = deviations(project, reference, [n for n in reference if n not in ("logits", *names)])
    worst = max(gradients, key=lambda name: gradients[name])
    return Agreement(float(logits), float(losses), gradients[worst], worst)


def deviations(
    found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], names: Iterable[str]
) -> dict[str, float]:
    """Distance of each gradient in ``names`` from the true one, over the true one's norm, :data:`NOISE` of all at least."""
    norms = {n: float(np.linalg.norm(truth[n])) for n in names}
    least = NOISE * float(np.linalg.norm(list(norms.values())))
    return {
        n: float(np.linalg.norm(found[n].ravel().astype(np.float64) - truth[n].ravel())) / max(norm, least)
        for n, norm in norms.items()
    }


def check(workload: Workload, tolerance: float, anyway: bool = False) -> dict[str, Any]:
    """Both sides once without dropout, compared with the reference in float64: a part of a benchmark's record.

    In fp32 UserError where the project differs by more than ``tolerance``, unless ``anyway``. What TF32 and narrower
    formats may differ by is not known beforehand: the reference's own difference at that precision stands beside.
    """
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:

        def outputs(side: str, exact: bool) -> dict[str, np.ndarray]:
            file = Path(folder, f"{side}-{exact}.npz")
            run(side, "check", workload, to=str(file), exact=exact)
            with np.load(file) as stored:
                return dict(stored)

        truth = outputs("reference", exact=True)
        found = compare(outputs("project", exact=False), truth)
        record: dict[str, Any] = {"agreement": found._asdict()}
        if workload.precision != "fp32":
            record["reference_agreement"] = compare(outputs("reference", exact=False), truth)._asdict()
            return record
    record["agrees"] = all(value <= tolerance for value in found[:3])  # NaN must not pass
    if not record["agrees"] and not anyway:
        raise UserError(f"The two sides do not compute the same, timings would mean nothing: {found}.")
    return record
