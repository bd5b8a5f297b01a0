"""How many supports lose their whole mask on the feature grid: ``python -m benchmarks.vanished DATA_ROOT``.

For every class the pictures whose mask, prepared as in testing at ``--size``, is zero everywhere on a grid of ``--grid``
positions, when it is sampled at points (``protocol.support_mask=point``, as released) and when it is pooled by area.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.report import markdown
from cpanet import runtime
from cpanet.data import load_dataset, transforms
from cpanet.data.dataset import DefectDataset
from cpanet.models.masks import shrink_mask
from cpanet.protocol import SupportMask
from cpanet.runtime import jt


def vanished(dataset: DefectDataset, size: int, grid: int) -> dict[str, dict[str, tuple[int, float]]]:
    """Class → kind of support mask → number of pictures lost, and the largest part of a picture that was lost."""
    found: dict[str, dict[str, tuple[int, float]]] = {}
    for number, name in enumerate(dataset.classes):
        prepared = [
            transforms.test(dataset.images[i], dataset.masks[i], size)[1] for i in dataset.indices_of(number)
        ]
        masks = (np.stack(prepared) == 1).astype(np.float32)
        parts = masks.mean(axis=(1, 2))
        found[name] = {}
        for kind in get_args(SupportMask):
            small = shrink_mask(jt.array(masks[:, None]), (grid, grid), kind).numpy()
            lost = (small.max(axis=(1, 2, 3)) <= 0) & (parts > 0)
            found[name][kind] = int(lost.sum()), float(parts[lost].max(initial=0.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--name", default="metal8", help="its name (default: %(default)s)")
    parser.add_argument("--size", type=int, default=200, help="pixels (default: %(default)s)")
    parser.add_argument("--grid", type=int, default=13, help="VGG-16: 13 at 200 pixels, 6 at 96")
    options = parser.parse_args()
    runtime.prepare("cpu")
    dataset = load_dataset(options.name, options.root)
    headings = (
        "class",
        "pictures",
        "lost at points",
        "largest of these, part of its picture",
        "lost by area",
    )
    rows = []
    for name, kinds in vanished(dataset, options.size, options.grid).items():
        (points, largest), (area, _) = kinds["point"], kinds["area"]
        count = len(dataset.indices_of(dataset.classes.index(name)))
        rows.append((name, count, points, f"{largest:.3f}", area))
    print(markdown(headings, rows), end="")


if __name__ == "__main__":
    main()
