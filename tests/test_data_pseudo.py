"""Pseudo-class episodes: what is painted is marked, what query and support share they share, and nobody else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.data.loader import EpisodeLoader, EpisodeMaker
from cpanet.data.pseudo import PLAIN, EpisodeChanges, draw_region, draw_style
from cpanet.data.transforms import denormalise
from tests.datasets import tiny_dataset


def one_batch(transform: EpisodeChanges, seed: int = 7):
    dataset = tiny_dataset()
    pool = [int(i) for i in dataset.split(0).train_indices]
    with EpisodeLoader(dataset, 0, 2, 7, 4, 64) as loader:
        episodes = next(loader.epoch(0)).episodes
    return EpisodeMaker(dataset, 64, transform, pool).batch(episodes, seed, 0, 0)


def test_pseudo_class_marks_what_was_painted_and_real_defects_are_background():
    plain, changed = one_batch(PLAIN), one_batch(EpisodeChanges(pseudo=1.0))
    for before, after, mask in (
        (plain.query, changed.query, changed.query_mask),
        (plain.support, changed.support, changed.support_mask),
    ):
        differs = np.abs(after - before).max(axis=-3) > 1e-3
        assert np.any(mask == 1, axis=(-2, -1)).all()
        assert differs[mask == 1].mean() > 0.8  # a stripe passes through zero
        assert not np.array_equal(
            mask == 1, (plain.query_mask if mask.ndim == 3 else plain.support_mask) == 1
        )
    assert np.array_equal(plain.query_mask == 255, changed.query_mask == 255)


def test_inversion_is_shared_and_leaves_masks_and_padding():
    plain, changed = one_batch(PLAIN), one_batch(EpisodeChanges(invert=1.0))
    for name in ("query", "support"):
        before = denormalise(getattr(plain, name).reshape(-1, 3, 64, 64)[0]).astype(int)
        after = denormalise(getattr(changed, name).reshape(-1, 3, 64, 64)[0]).astype(int)
        inside = getattr(plain, f"{name}_mask").reshape(-1, 64, 64)[0] != 255
        assert np.abs(before + after - 255)[inside].max() <= 1
        assert np.array_equal(before[~inside], after[~inside])
    assert np.array_equal(plain.query_mask, changed.query_mask)


def test_negative_episodes_have_an_empty_target_and_supports_of_another_class():
    plain, changed = one_batch(PLAIN), one_batch(EpisodeChanges(negative=1.0))
    assert not np.any(changed.query_mask == 1)
    assert np.any(changed.support_mask == 1)
    assert not np.array_equal(plain.support, changed.support)


@pytest.mark.parametrize("workers", [0, 1])
def test_changed_batches_do_not_depend_on_workers_or_on_where_an_epoch_begins(workers):
    transform = EpisodeChanges(invert=0.5, photometric=0.5, pseudo=0.5, distractor=0.5, negative=0.2)
    with EpisodeLoader(tiny_dataset(), 0, 1, 3, 2, 32, transform=transform) as loader:
        expected = list(loader.epoch(1))
    with EpisodeLoader(tiny_dataset(), 0, 1, 3, 2, 32, workers=workers, transform=transform) as loader:
        found = list(loader.epoch(1, start=1))
    for batch, wanted in zip(found, expected[1:]):
        assert np.array_equal(batch.query, wanted.query)
        assert np.array_equal(batch.support_mask, wanted.support_mask)


def test_regions_grow_with_largest_and_other_changes_stay():
    def defect(largest):
        batches = [one_batch(EpisodeChanges(pseudo=1.0, largest=largest), seed) for seed in range(8)]
        return np.mean([np.mean(batch.query_mask == 1) for batch in batches])

    assert defect(1.0) > 2 * defect(0.1)
    plain = EpisodeChanges(invert=0.5, photometric=0.5)
    larger = plain.model_copy(update={"largest": 1.0})
    assert np.array_equal(one_batch(plain).query, one_batch(larger).query)


def test_a_style_looks_alike_at_different_places():
    style = draw_style(np.random.default_rng(4), 0.28)
    first, second = (draw_region(style, np.random.default_rng(seed), 200) for seed in (0, 1))
    assert first.shape == (200, 200)
    assert not np.array_equal(first, second)
    assert first.min() >= 0.0
    assert first.max() <= 1.0
