"""The training batches of a run, behind the backbone where runs of one process share them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from cpanet.config import Config
from cpanet.data import Batch, DefectDataset, EpisodeLoader
from cpanet.feature_cache import FeatureBatch, SharedFeatures


class TrainingBatches:
    """Episodes of the training classes, a batch an iteration; the same for every number of workers and every start.

    ``loader``: its workers run inside its ``with`` block. ``key`` identifies backbone and data set for ``shared``, which
    keeps what the backbone makes of the images (None: nothing is kept, and batches are images).
    """

    def __init__(
        self,
        config: Config,
        dataset: DefectDataset,
        model: Any,
        key: Hashable,
        epochs: int,
        shared: SharedFeatures | None,
    ) -> None:
        self._model, self._shared = model, shared
        available = len(dataset.split(config.fold).train_indices) // config.train.batch_size
        self.per_epoch = min(available, config.train.iterations_per_epoch or available)
        transform = config.recipe.episodes
        self._origin = (  # key of batches behind the backbone, besides epoch and position
            key,
            config.seed,
            config.shot,
            config.train.batch_size,
            config.recipe.sampling,
            json.dumps(transform.model_dump(exclude={"name"}), sort_keys=True),
            model.unpooled,
        )
        # where all are kept there is nothing left for workers to do
        kept = shared is not None and shared.begin(self._origin, epochs, self.per_epoch)
        self.loader = EpisodeLoader(
            dataset,
            config.fold,
            config.shot,
            config.seed,
            config.train.batch_size,
            config.data.image_size,
            workers=0 if kept else config.data.workers,
            sampling=config.recipe.sampling,
            transform=transform,
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | FeatureBatch]:
        """The batches of an epoch, from the ``start``-th on."""
        if self._shared is None:
            return islice(self.loader.epoch(epoch, start), self.per_epoch - start)
        images = partial(self.loader.epoch, epoch)
        return self._shared.training_batches(self._model, self._origin, epoch, start, self.per_epoch, images)

    def images(self, iteration: int) -> Batch:
        """The batch of one iteration, made again as images."""
        return next(self.loader.epoch(*divmod(iteration, self.per_epoch)))
