"""Features that the runs of a process share: what is kept, how much of it, and when it is let go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cpanet.data import Batch
from cpanet.feature_cache import SharedFeatures, backbone_key
from cpanet.runtime import jt


class Backbone:
    """Doubles images; counts how often it is asked."""

    def __init__(self) -> None:
        self.passes = 0

    def episode_features(self, query, support):
        self.passes += 1
        return query * 2, support * 2


def images(start: int) -> Iterator[Batch]:
    for position in range(start, 10):
        array = np.full((1, 3, 8, 8), position, np.float32)
        mask = np.full((1, 8, 8), position, np.uint8)
        yield Batch(array, mask, array[:, None], mask[:, None], ())


def epoch(
    features: SharedFeatures, model: Backbone, start: int = 0, stop: int = 4, origin: object = 0
) -> list:
    return [b.query[0, 0, 0, 0] for b in features.training_batches(model, origin, 0, start, stop, images)]


@pytest.fixture
def features() -> SharedFeatures:
    jt.flags.use_cuda = 0
    return SharedFeatures()


def test_the_second_run_computes_nothing(features):
    assert epoch(features, Backbone()) == [0, 2, 4, 6]
    second = Backbone()
    assert epoch(features, second) == [0, 2, 4, 6]
    assert second.passes == 0
    assert features.begin(0, 1, 4)
    assert not features.begin(0, 2, 4)


def test_runs_that_see_other_images_are_apart(features):
    epoch(features, Backbone())
    other = Backbone()
    epoch(features, other, origin=1)
    assert other.passes == 4
    assert not features.begin(2, 1, 1)


def test_a_run_that_begins_in_the_middle_and_one_that_goes_further(features):
    assert epoch(features, Backbone(), start=2) == [4, 6]
    model = Backbone()
    assert epoch(features, model, stop=6) == [0, 2, 4, 6, 8, 10]
    again = Backbone()
    assert epoch(features, again, stop=6) == [0, 2, 4, 6, 8, 10]
    assert again.passes == 0


def one_batch() -> int:
    return next(SharedFeatures().training_batches(Backbone(), 0, 0, 0, 1, images)).nbytes


def passes(features: SharedFeatures, origin: object) -> int:
    """How often a run of ``origin`` asks the backbone."""
    model = Backbone()
    features.begin(origin, 1, 4)
    assert epoch(features, model, origin=origin) == [0, 2, 4, 6]
    return model.passes


def test_rows_of_every_seed_share_where_seeds_come_one_after_the_other():
    features = SharedFeatures(limit=4 * one_batch())
    assert [passes(features, seed) for seed in (0, 0, 0, 1, 1, 2, 2)] == [4, 0, 0, 4, 0, 4, 0]


def test_the_first_seed_stays_where_every_run_has_another():
    features = SharedFeatures(limit=4 * one_batch())
    assert [passes(features, seed) for seed in (0, 1, 2, 0, 1, 2)] == [4, 4, 4, 0, 4, 4]


def test_no_more_is_kept_than_the_limit():
    one = one_batch()
    features = SharedFeatures(limit=2 * one)
    epoch(features, Backbone())
    model = Backbone()
    assert epoch(features, model) == [0, 2, 4, 6]
    assert model.passes == 2


def test_backbones_of_one_name_are_told_apart_by_class_and_arguments():
    section = {
        "name": "mine",
        "_target_": "cpanet.models.backbones.ResNet",
        "depth": 50,
        "lr": 0.1,
        "label": "a",
    }
    assert backbone_key(section) == backbone_key({**section, "lr": 0.2, "label": "b"})
    assert backbone_key(section) != backbone_key({**section, "depth": 101})
    assert backbone_key(section) != backbone_key({**section, "_target_": "mine.ResNet"})
