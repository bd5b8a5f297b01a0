"""Draw ``pseudo.jpg``, the picture of docs/recipe.md: ``python docs/figures/pseudo.py DATA_ROOT [FILE]``.

Twelve training episodes of metal8 fold 0 as ``recipe/episodes=pseudo`` makes them, each with support and query, masks
outlined in green. In the first two rows every episode has a pseudo-class; in the third, episodes are drawn as in training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from cpanet.data import load_dataset
from cpanet.data.episodes import train_episodes
from cpanet.data.loader import EpisodeMaker
from cpanet.data.pseudo import EpisodeChanges
from cpanet.data.transforms import denormalise
from cpanet.overlay import overlay

SIZE, SHOWN, GAP, COLUMNS = 200, 130, 5, 4
FOLD, SEED, EPOCH = 0, 0, 0


def episodes(root: Path, position: int, count: int, transform: EpisodeChanges) -> list[np.ndarray]:
    """Episodes ``position`` and following of the first epoch: support | query, uint8 RGB."""
    dataset = load_dataset("metal8", root)
    chosen = train_episodes(dataset, FOLD, 1, SEED, EPOCH, "class")[position : position + count]
    pool = [int(index) for index in dataset.split(FOLD).train_indices]
    batch = EpisodeMaker(dataset, SIZE, transform, pool).batch(chosen, SEED, EPOCH, position)
    pairs = []
    for row in range(count):
        sides = [
            (batch.support[row, 0], batch.support_mask[row, 0]),
            (batch.query[row], batch.query_mask[row]),
        ]
        shown = [overlay(denormalise(image), outlined=mask == 1) for image, mask in sides]
        shown = [cv2.resize(picture, (SHOWN, SHOWN), interpolation=cv2.INTER_AREA) for picture in shown]
        pairs.append(np.concatenate([shown[0], np.full((SHOWN, 2, 3), 255, np.uint8), shown[1]], axis=1))
    return pairs


def grid(pairs: list[np.ndarray]) -> np.ndarray:
    """COLUMNS episodes a row, white between them."""
    padded = [np.pad(pair, ((0, GAP), (0, 3 * GAP), (0, 0)), constant_values=255) for pair in pairs]
    rows = [np.concatenate(padded[i : i + COLUMNS], axis=1) for i in range(0, len(padded), COLUMNS)]
    return np.concatenate(rows)[:-GAP, : -3 * GAP]


if __name__ == "__main__":
    target = Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).with_suffix(".jpg")
    always = episodes(Path(sys.argv[1]), 0, 2 * COLUMNS, EpisodeChanges(invert=0.5, pseudo=1.0))
    mixed = episodes(Path(sys.argv[1]), 2 * COLUMNS, COLUMNS, EpisodeChanges(invert=0.5, pseudo=0.6))
    picture = cv2.cvtColor(grid([*always, *mixed]), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
