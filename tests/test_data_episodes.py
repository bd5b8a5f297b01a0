"""Episodes: the rules of the protocol, and that nothing but the named things changes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cpanet.data import episodes as module
from cpanet.data.dataset import DefectDataset
from cpanet.data.episodes import Episode, train_episodes
from cpanet.errors import UserError
from tests.datasets import tiny_dataset

draw_test = module.test_episodes


@pytest.fixture(scope="module")
def dataset() -> DefectDataset:
    return tiny_dataset(classes=6, per_class=7, folds=3)


def part_of(dataset: DefectDataset, kept: np.ndarray) -> DefectDataset:
    """The images of these numbers alone."""
    lists = {name: [getattr(dataset, name)[i] for i in kept] for name in ("images", "masks", "names")}
    return replace(dataset, labels=dataset.labels[kept], **lists)


def check_rules(dataset: DefectDataset, episodes: list[Episode], shot: int) -> None:
    for query, supports, class_index in episodes:
        assert query not in supports
        assert len(set(supports)) == len(supports) == shot
        assert {int(dataset.labels[i]) for i in (query, *supports)} == {class_index}


@pytest.mark.parametrize("shot", [1, 5])
def test_supports_are_other_images_of_the_class_each_once(dataset, shot):
    check_rules(dataset, draw_test(dataset, 1, shot, 0), shot)
    check_rules(dataset, train_episodes(dataset, 1, shot, 0, 3), shot)


def test_every_test_image_is_a_query_once(dataset):
    queries = [e.query for e in draw_test(dataset, 1, 1, 0)]
    assert queries == dataset.split(1).test_indices.tolist()
    assert {e.class_index for e in draw_test(dataset, 1, 1, 0)} == {2, 3}


def test_every_training_image_is_a_query_once_an_epoch_in_an_order_of_its_own(dataset):
    first, second = (train_episodes(dataset, 1, 1, 0, epoch) for epoch in (0, 1))
    expected = dataset.split(1).train_indices.tolist()
    assert sorted(e.query for e in first) == sorted(e.query for e in second) == expected
    assert [e.query for e in first] != [e.query for e in second]
    assert {e.class_index for e in first} == {0, 1, 4, 5}


def test_test_episodes_are_fixed_by_fold_shot_and_seed(dataset):
    again = draw_test(dataset, 1, 1, 0)
    assert again == draw_test(dataset, 1, 1, 0)
    assert again != draw_test(dataset, 1, 1, 1)
    # The very supports, so that a change of the drawing does not go unnoticed: results would not compare.
    assert [e.supports[0] for e in again] == [20, 20, 20, 15, 16, 20, 19, 22, 24, 21, 21, 24, 21, 25]


def test_test_episodes_do_not_depend_on_pixels_or_on_the_fingerprint(dataset):
    changed = replace(dataset, images=dataset.images[::-1], fingerprint="1" * 64)
    assert draw_test(changed, 0, 1, 0) == draw_test(dataset, 0, 1, 0)


def test_a_missing_image_of_one_class_leaves_the_other_classes_alone(dataset):
    fewer = part_of(dataset, np.delete(np.arange(len(dataset)), 16))  # of class 2

    def named(d: DefectDataset) -> list[tuple[str, str]]:
        return [
            (d.names[e.query], d.names[e.supports[0]]) for e in draw_test(d, 1, 1, 0) if e.class_index == 3
        ]

    assert named(fewer) == named(dataset)


def test_a_limit_keeps_episodes_of_every_class_as_they_are(dataset):
    whole, some = draw_test(dataset, 1, 1, 0), draw_test(dataset, 1, 1, 0, limit=4)
    assert len(some) == 4
    assert set(some) <= set(whole)
    assert Counter(e.class_index for e in some) == {2: 2, 3: 2}
    assert draw_test(dataset, 1, 1, 0, limit=99) == whole


def test_the_order_of_an_epoch_is_not_the_augmentation_of_its_first_episode(dataset):
    # numpy pads seeds with zeros: [s, e] and [s, e, 0] would be one generator. Nor is it that of another episode.
    order = [e.query for e in train_episodes(dataset, 1, 1, 3, 4)]
    images = dataset.split(1).train_indices
    for seed in ([3, 4], *([3, 4, position] for position in range(len(order)))):
        assert np.random.default_rng(seed).permutation(images).tolist() != order


@pytest.mark.parametrize("shot", [0, 7])
def test_an_impossible_shot_is_explained(dataset, shot):
    with pytest.raises(UserError, match=r"class class_2 has 7 images, so shot can be 1 to 6"):
        draw_test(dataset, 1, shot, 0)


def test_sampling_by_class_meets_a_small_class_as_often_as_a_large_one(dataset):
    small = dataset.split(0).train_classes[0]
    images = np.arange(len(dataset))
    uneven = part_of(dataset, np.delete(images, images[dataset.labels == small][3:]))
    counts = {}
    for sampling in ("image", "class"):
        episodes = train_episodes(uneven, 0, 1, 0, 0, sampling)
        check_rules(uneven, episodes, 1)
        assert len(episodes) == len(uneven.split(0).train_indices)
        drawn = Counter(e.class_index for e in episodes)
        counts[sampling] = max(drawn.values()) - min(drawn.values())
    assert counts["image"] == 4
    assert counts["class"] <= 1
