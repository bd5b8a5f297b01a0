"""Features of the frozen backbone: each test image goes through it once, and in a sweep each training image."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Callable, NamedTuple

import numpy as np

from cpanet import options
from cpanet.data import Batch, DefectDataset, Episode, transforms
from cpanet.runtime import jt


class ImageFeatures:
    """Features (N, C, h, w) and masks of ``indices``, in their order, in the test transform at ``size``, in host memory.

    One image of 200×200 takes 0.5 MB with VGG-16 and 3.8 MB with a ResNet.
    """

    def __init__(
        self, model: Any, dataset: DefectDataset, indices: Iterable[int], size: int, chunk: int = 8
    ) -> None:
        self.size, self.unpooled = size, bool(model.unpooled)
        self._row = {int(index): row for row, index in enumerate(indices)}
        model.eval()
        prepared = [transforms.test(dataset.images[i], dataset.masks[i], size) for i in self._row]
        self._masks = np.stack([mask for _, mask in prepared])
        parts = []
        for start in range(0, len(prepared), chunk):
            images = np.stack([image for image, _ in prepared[start : start + chunk]])
            filled = np.concatenate([images, np.repeat(images[-1:], chunk - len(images), axis=0)])
            parts.append(model.features(jt.array(filled)).numpy()[: len(images)])
        self.features = np.concatenate(parts)

    def episodes(self, episodes: Sequence[Episode]) -> tuple[Any, Any, Any]:
        """Query features (B, C, h, w), support features (B, K, C, h, w), support masks (B, K, S, S) on the device."""
        query = [self._row[e.query] for e in episodes]
        supports = np.array([[self._row[s] for s in e.supports] for e in episodes])
        features, masks = self.features, self._masks
        return jt.array(features[query]), jt.array(features[supports]), jt.array(masks[supports])


class FeatureBatch(NamedTuple):
    """A training batch behind the backbone: features float32, masks uint8 {0, 1, 255 = ignored}."""

    query: np.ndarray  # (B, C, h, w)
    query_mask: np.ndarray  # (B, S, S)
    support: np.ndarray  # (B, K, C, h, w)
    support_mask: np.ndarray  # (B, K, S, S)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)


def backbone_key(section: Mapping[str, Any]) -> str:
    """Key of a ``backbone`` section's features, beside its weights: the class and its arguments."""
    kept = {key: value for key, value in section.items() if key not in options.BESIDE_NETWORK}
    return json.dumps(kept, sort_keys=True)


class SharedFeatures:
    """Results of a frozen backbone that the runs of one process share: test features, training batches, projections.

    The rows of a table meet, seed by seed and fold by fold, the same images, and the backbone is frozen: what it makes of
    them is computed by the first of these runs. Keys and origins are all that the numbers depend on. Everything is kept in
    host memory; training batches up to ``limit`` bytes (by default an eighth of the machine's), those beyond are computed
    anew in every run. A sweep that has gone on to the next seed or fold after several runs of one (``seed=0,1
    ablation=…``) lets the batches of that one go; where every run has another seed, the first ones stay.
    """

    def __init__(self, limit: int | None = None) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._limit = memory // 8 if limit is None else limit
        self._images: dict[Hashable, ImageFeatures] = {}
        self._projection: tuple[Hashable, Any] | None = None
        # by origin, then by epoch and position
        self._batches: dict[Hashable, dict[tuple[int, int], FeatureBatch]] = {}
        self._bytes = 0
        self._in_a_row: dict[Hashable, int] = {}  # how many runs had the same origin, one after the other
        self._last: Hashable = None

    def images(
        self, key: Hashable, model: Any, dataset: DefectDataset, indices: Iterable[int], size: int
    ) -> ImageFeatures:
        """Features of ``indices``, computed if need be; the last two keys are kept.

        Two of them: those of a network and of the baseline beside it can be of different stages.
        """
        if key not in self._images:
            while len(self._images) > 1:  # let go of the old ones before the new ones are made
                del self._images[next(iter(self._images))]
            self._images[key] = ImageFeatures(model, dataset, indices, size)
        return self._images[key]

    def projection(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result of ``make()`` when it was last called for ``key``; the last key is kept."""
        if self._projection is None or self._projection[0] != key:
            self._projection = None
            self._projection = key, make()
        return self._projection[1]

    def begin(self, origin: Hashable, epochs: int, batches: int) -> bool:
        """Begin a run; whether all its training batches are there. ``origin``: what they depend on but their position."""
        self._in_a_row[origin] = self._in_a_row[origin] + 1 if origin == self._last else 1
        self._last = origin
        kept = self._batches.get(origin, {})
        return all((e, b) in kept for e in range(epochs) for b in range(batches))

    def training_batches(
        self,
        model: Any,
        origin: Hashable,
        epoch: int,
        start: int,
        stop: int,
        source: Callable[[int], Iterator[Batch]],
    ) -> Iterator[FeatureBatch]:
        """Batches ``start`` to ``stop`` of an epoch; ``source(position)`` gives their images from a position on."""
        kept, position = self._batches.setdefault(origin, {}), start
        while position < stop and (epoch, position) in kept:
            yield kept[epoch, position]
            position += 1
        if position == stop:
            return
        for batch in islice(source(position), stop - position):
            query, support = model.episode_features(jt.array(batch.query), jt.array(batch.support))
            made = FeatureBatch(query.numpy(), batch.query_mask, support.numpy(), batch.support_mask)
            if (epoch, position) not in kept and self._has_room(made.nbytes, origin):
                kept[epoch, position] = made
                self._bytes += made.nbytes
            yield made
            position += 1

    def _has_room(self, size: int, origin: Hashable) -> bool:
        """Whether ``size`` bytes can be kept for ``origin``, once what is done with has been let go."""
        for other in [key for key in self._batches if key != origin and self._in_a_row.get(key, 0) > 1]:
            if self._bytes + size <= self._limit:
                break
            self._bytes -= sum(batch.nbytes for batch in self._batches.pop(other).values())
        return self._bytes + size <= self._limit
