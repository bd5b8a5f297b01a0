"""Transforms against cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.data import transforms
from cpanet.data.transforms import MEAN, STD, canvas_shape, crop_corner, denormalise, normalise, pad, rotate
from tests.datasets import picture


class Scripted:
    """A generator that gives what the test says: uniform → middle or ends, random → fixed switches."""

    def __init__(self, scale: float, switches: tuple[float, float, float], degrees: float = 0.0):
        self.uniforms, self.switches = [scale, degrees], switches

    def uniform(self, low: float, high: float) -> float:
        value = self.uniforms.pop(0)
        assert low <= value <= high
        return value

    def random(self, n: int) -> np.ndarray:
        return np.array(self.switches[:n])

    def integers(self, high: int) -> int:
        return 0


ON, OFF = 0.0, 0.9


def train(image, mask, size, scale=1.0, switches=(OFF, OFF, OFF), degrees=0.0):
    return transforms.train(image, mask, Scripted(scale, switches, degrees), size)


def test_nothing_drawn_leaves_the_image_as_it_is():
    image, mask = picture(1)
    out, label = train(image, mask, 40)
    assert out.dtype == np.float32
    assert out.shape == (3, 40, 40)
    assert label.dtype == np.uint8
    assert np.array_equal(denormalise(out), image)
    assert np.array_equal(label, mask)


def test_normalisation_is_imagenets():
    out = normalise(np.full((1, 1, 3), 255, np.uint8))
    assert np.allclose(out[:, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], atol=1e-6)


def test_a_flip_mirrors_image_and_mask():
    image, mask = picture(1)
    out, label = train(image, mask, 40, switches=(OFF, OFF, ON))
    assert np.array_equal(denormalise(out), image[:, ::-1])
    assert np.array_equal(label, mask[:, ::-1])


def test_a_smaller_scale_is_padded_with_the_mean_and_ignored():
    image, mask = picture(1)
    out, label = train(image, mask, 40, scale=0.9)
    assert (label == 255).sum() == 40 * 40 - 36 * 36
    assert (label[2:38, 2:38] != 255).all()
    assert np.abs(out[:, label == 255]).max() < 1e-6  # the mean, normalised


def test_a_larger_scale_is_cropped():
    image, mask = picture(1)
    _, label = train(image, mask, 40, scale=1.1)
    assert label.shape == (40, 40)
    assert not (label == 255).any()


def test_another_image_size_is_first_brought_to_the_canvas():
    image, mask = picture(1, 80, 40)
    _, label = train(image, mask, 40)
    assert (label != 255).sum() == 40 * 20
    assert (label[:, 10:30] != 255).all()


def test_a_rotation_ignores_what_comes_from_outside():
    image, mask = np.full((41, 41, 3), 10, np.float32), np.ones((41, 41), np.uint8)
    turned, label = rotate(image, mask, 10)
    assert label[0, 0] == label[-1, -1] == 255
    assert label[20, 20] == 1
    assert np.allclose(turned[0, 0], MEAN, atol=1e-3)
    quarter = np.zeros((40, 40), np.uint8)
    quarter[5, 30] = 1
    _, turned_label = rotate(np.zeros((40, 40, 3), np.float32), quarter, 90)
    assert np.argwhere(turned_label == 1).tolist() == [[10, 5]]  # counter-clockwise about (20, 20)


def test_a_blur_keeps_the_mask_and_the_mean():
    image, mask = picture(1)
    out, label = train(image, mask, 40, switches=(OFF, ON, OFF))
    assert np.array_equal(label, mask)
    assert out.std() < normalise(image).std()
    assert abs(out.mean() - normalise(image).mean()) < 0.02


def test_padding_is_half_on_either_side():
    _, label = pad(np.zeros((3, 2, 3), np.float32), np.zeros((3, 2), np.uint8), 6)
    assert label.shape == (6, 6)
    assert np.argwhere(label == 0)[[0, -1]].tolist() == [[1, 2], [3, 3]]


def test_crops_keep_85_percent_of_the_defect_where_they_can():
    label = np.zeros((60, 60), np.uint8)
    label[40:50, 40:50] = 1
    for seed in range(50):
        top, left = crop_corner(label, 40, np.random.default_rng(seed))
        assert (label[top : top + 40, left : left + 40] == 1).sum() >= 85


def test_a_crop_that_cannot_keep_the_defect_is_drawn_31_times_and_taken():
    draws = []

    class Counting:
        def integers(self, high: int) -> int:
            draws.append(high)
            return len(draws) % high

    label = np.ones((200, 200), np.uint8)
    assert crop_corner(label, 40, Counting()) == (61, 62)  # the last of 31 pairs
    assert len(draws) == 62


def test_the_same_generator_gives_the_same_picture_and_another_another():
    image, mask = picture(1)
    first, second, third = (transforms.train(image, mask, np.random.default_rng(s), 32) for s in (1, 1, 2))
    assert np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], third[0])


def test_half_of_the_pictures_are_flipped():
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:30, 2:12] = 1
    sides = [
        np.argwhere(transforms.train(image, mask, np.random.default_rng(s), 40)[1] == 1)[:, 1].mean() > 20
        for s in range(200)
    ]
    assert 70 < sum(sides) < 130


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (200, 200, 200, (200, 200)),
        (400, 200, 200, (200, 96)),  # 100 → 96
        (105, 632, 96, (8, 96)),  # 15 → 8
        (227, 403, 200, (112, 200)),
        (100, 100, 200, (200, 200)),
        (8, 4000, 96, (8, 96)),  # never nothing
        (200, 200, 100, (96, 96)),
    ],
)
def test_the_test_canvas_rounds_down_to_eights(height, width, size, expected):
    assert canvas_shape(height, width, size) == expected


def test_the_test_transform_stands_top_left_on_black_that_is_ignored():
    image, mask = picture(1, 40, 80)
    out, label = transforms.test(image, mask, 80)
    assert np.array_equal(denormalise(out)[:40], image)
    assert np.array_equal(label[:40], mask)
    assert (label[40:] == 255).all()
    assert np.allclose(out[:, 40:], (-MEAN / STD)[:, None, None])
