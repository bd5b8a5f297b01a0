"""The test episodes of a run, and what a model scores and draws on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np

from cpanet import engine
from cpanet.config import Config
from cpanet.data import DefectDataset, test_episodes
from cpanet.feature_cache import ImageFeatures, SharedFeatures
from cpanet.metrics import predicted
from cpanet.records.pictures import EpisodeFigure


class Evaluator:
    """The same test episodes for every model of a run. ``key`` identifies backbone, data set and device for ``shared``."""

    def __init__(self, config: Config, dataset: DefectDataset, key: Hashable, shared: SharedFeatures) -> None:
        self._config, self._key, self._shared = config, key, shared
        self.dataset = dataset
        self.episodes = test_episodes(
            dataset, config.fold, config.shot, config.evaluate.episode_seed, config.evaluate.episodes
        )
        self.defect_pixels = sum(int(np.count_nonzero(dataset.masks[e.query] == 1)) for e in self.episodes)

    def features(self, model: Any) -> ImageFeatures:
        """Features of the tested classes' images from ``model``'s backbone."""
        indices, size = self.dataset.split(self._config.fold).test_indices, self._config.data.image_size
        if (
            self._config.protocol.backbone_mode == "train"
        ):  # BatchNorm's statistics drift: nothing can be kept
            return ImageFeatures(model, self.dataset, indices, size)
        return self._shared.images((self._key, model.unpooled), model, self.dataset, indices, size)

    def evaluate(self, model: Any, before_each: Callable[[], None]) -> engine.Evaluation:
        """Every episode once; ``before_each`` batch is called, and may end it by raising."""
        return engine.evaluate(
            model,
            self.dataset,
            self.episodes,
            self.features(model),
            self._config.evaluate.batch_size,
            before_each=before_each,
        )

    def figures(self, model: Any, count: int) -> list[EpisodeFigure]:
        """``count`` episodes, spread over the classes, with ``model``'s predictions."""
        count = min(count, len(self.episodes))
        chosen = [self.episodes[i] for i in np.linspace(0, len(self.episodes) - 1, count).astype(int)]
        dataset, figures = self.dataset, []
        for episode, difference in engine.predict_episodes(model, chosen, self.features(model), 1):
            query, support = episode.query, episode.supports[0]
            figures.append(
                EpisodeFigure(
                    dataset.images[support],
                    dataset.masks[support] == 1,
                    dataset.images[query],
                    dataset.masks[query] == 1,
                    predicted(difference, *dataset.masks[query].shape),
                    f"{dataset.classes[episode.class_index]}: {Path(dataset.names[query]).name}",
                    dataset.names[query],
                    dataset.names[support],
                )
            )
        return figures
