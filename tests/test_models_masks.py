"""The support's mask on the feature grid."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.models import Protocol, PrototypeBaseline, published_backbone, published_network
from cpanet.models.masks import area_matrix, pool_by_area, shrink_mask
from cpanet.runtime import jt


def spot(top: int, left: int, size: int = 64) -> np.ndarray:
    mask = np.zeros((1, 1, size, size), np.float32)
    mask[..., top : top + 2, left : left + 2] = 1
    return mask


@pytest.mark.parametrize(("n_out", "n_in"), [(13, 200), (25, 200), (4, 64), (1, 9), (8, 8)])
def test_every_pixel_is_in_some_cell_and_cells_are_means(n_out, n_in):
    matrix = area_matrix(n_out, n_in)
    assert matrix.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert (matrix.sum(axis=0) > 0).all()
    assert matrix[n_out // 2] @ np.ones(n_in) == pytest.approx(1.0)


def test_pooling_is_the_covered_part_of_each_cell():
    mask = np.zeros((1, 1, 5, 5), np.float32)
    mask[0, 0, :2, 2] = 1  # cells of 3 from 5: rows 0–1 | 1–4 | 4–5 with half pixels: edges 0, 1.5, 3.5, 5
    found = pool_by_area(jt.array(mask), (3, 3)).numpy()[0, 0]
    assert found[0, 1] == pytest.approx(0.5)
    assert found[1, 1] == pytest.approx(0.5 / 2 / 2)
    assert found.sum() == pytest.approx(0.625)


def test_a_spot_between_the_sampled_points_is_lost_at_points_and_kept_by_area():
    mask = jt.array(spot(9, 9))
    assert not shrink_mask(mask, (4, 4), "point").numpy().any()
    assert shrink_mask(mask, (4, 4), "area").numpy().max() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["full", "none", "baseline"])
def test_supports_with_different_tiny_defects_give_different_predictions(kind):
    """Both spots fall between the sampled points of the 4×4 grid."""

    def network(how):
        if kind == "baseline":
            return PrototypeBaseline(published_backbone("vgg16"), seed=0, support_mask=how)
        parts = dict.fromkeys(("cpp", "sa", "ssa"), kind == "full")
        return published_network("vgg16", **parts, width=16, protocol=Protocol(support_mask=how))

    rng = np.random.default_rng(0)
    query, support = (
        jt.array(rng.standard_normal((1, *s, 64, 64)).astype(np.float32)) for s in ((3,), (1, 3))
    )
    differ = {}
    for how in ("area", "point"):
        model = network(how)
        model.eval()
        with jt.no_grad():
            first, second = (
                model(query, support, jt.array(spot(*place).astype(np.uint8))).numpy()
                for place in ((9, 9), (50, 29))
            )
        differ[how] = np.abs(first - second).max() / np.abs(first).max()
    assert differ["point"] <= 1e-6
    assert differ["area"] > 1e-4
