"""Changes of training episodes before the network sees them."""

from collections.abc import Sequence
from typing import ClassVar, Optional

import numpy as np

from cpanet.section import Component, Text


class EpisodeTransform(Component):
    """A change to training episodes. Derive from it to add your own; what a class leaves out changes nothing.

    Everything random comes from the ``rng`` of the episode, so that batches depend neither on the number of workers nor
    on where a run began. ``pool`` holds the numbers of the fold's training images, all that a change may make use of.
    """

    KEY: ClassVar[str] = "recipe.episodes"

    name: Optional[Text] = None

    def supports(
        self, indices: Sequence[int], labels: Sequence[int], pool: Sequence[int], rng: np.random.Generator
    ) -> Sequence[int]:
        """The numbers of the support images, of ``indices``: the query's number and then the supports' as drawn.

        ``labels``: the class of every image. Where the supports are of another class than the query, its target is empty.
        """
        return indices[1:]

    def change(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        pictures: Sequence[np.ndarray],
        pool: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        """Change an augmented episode in place, query first.

        ``images`` are float32 (3, S, S), normalised; ``masks`` uint8 (S, S) {0, 1, 255 = padding}; ``pictures`` the data
        set's decoded images, uint8 (H, W, 3).
        """
