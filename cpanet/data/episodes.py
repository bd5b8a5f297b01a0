"""Episodes: one query, K supports of the same class.

Both functions are pure: the same arguments give the same episodes on any machine, in any process. They
depend on image names and classes, never on the order in which a file system lists them.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cpanet.data.dataset import DefectDataset
from cpanet.errors import UserError

# Third word of the seed of the epoch's order. Positions in an epoch are the third word of the seeds of its
# augmentations and never reach this. (Not simply left out: numpy pads seeds with zeros.)
_ORDER = 2**32 - 1


class Episode(NamedTuple):
    """Indices into a data set: the query, its K supports, and the class that all of them show."""

    query: int
    supports: tuple[int, ...]
    class_index: int


def _draw(rng: np.random.Generator, dataset: DefectDataset, query: int, shot: int) -> Episode:
    """The episode of ``query``: ``shot`` other images of its class, each at most once."""
    class_index = int(dataset.labels[query])
    others = dataset.indices_of(class_index)
    others = others[others != query]
    if shot < 1 or shot > len(others):
        raise UserError(
            f"shot={shot}: class {dataset.classes[class_index]} has {len(others) + 1} images, "
            f"so shot can be 1 to {len(others)}."
        )
    supports = rng.choice(others, size=shot, replace=False)
    return Episode(int(query), tuple(int(i) for i in supports), class_index)


def test_episodes(
    dataset: DefectDataset,
    fold: int,
    shot: int,
    seed: int,
    limit: int | None = None,  # noqa: PT028 (no test)
) -> list[Episode]:
    """Every test image of ``fold`` once as query; ``limit`` keeps that many, spread over all classes.

    Each episode has a generator of its own, seeded with (seed, fold, shot, name of the query): an image more
    or less in one class leaves the supports of the other classes as they are, and ``limit`` changes no
    episode that it keeps.
    """
    queries = dataset.split(fold).test_indices
    if limit is not None and limit < len(queries):
        queries = queries[np.arange(limit) * len(queries) // max(limit, 1)]
    seeds = [[seed, fold, shot, zlib.crc32(dataset.names[query].encode())] for query in queries]
    return [_draw(np.random.default_rng(s), dataset, query, shot) for s, query in zip(seeds, queries)]


# The name begins like a test's; pytest must not collect it where it is imported.
test_episodes.__test__ = False  # type: ignore[attr-defined]


def train_episodes(
    dataset: DefectDataset, fold: int, shot: int, seed: int, epoch: int, sampling: str = "image"
) -> list[Episode]:
    """The training episodes of an epoch, as many as ``fold`` has training images, drawn anew each epoch.

    ``image``: every training image once as query, in random order (the paper's). ``class``: the classes take turns in
    random order, each giving an image of its own at random order, so that a small class is met as often as a large one.
    """
    rng = np.random.default_rng([seed, epoch, _ORDER])
    split = dataset.split(fold)
    queries: Sequence[int] = rng.permutation(split.train_indices).tolist()
    if sampling == "class":
        queries = _by_turns(queries, dataset.labels, split.train_classes, rng)
    return [_draw(rng, dataset, query, shot) for query in queries]


def _by_turns(
    queries: Sequence[int], labels: np.ndarray, classes: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """As many queries as there are, one of each class in every round; a class that runs out starts again."""
    endless = {c: itertools.cycle([q for q in queries if labels[q] == c]) for c in classes}
    rounds = -(-len(queries) // len(classes))
    order = [int(c) for _ in range(rounds) for c in rng.permutation(classes)]
    return [next(endless[c]) for c in order[: len(queries)]]
