"""Tiles and their blending, regions and outlines, names of supports, queries and results."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from cpanet.errors import UserError
from cpanet.predict.outputs import sixteen_bits
from cpanet.predict.queries import find_queries
from cpanet.predict.regions import find_regions, polygon, without_small
from cpanet.predict.supports import find_supports, read_supports
from cpanet.predict.tiling import Blend, is_tiled, starts, support_windows, tiles
from tests.datasets import picture, save, write_folder

# ---------------------------------------------------------------------- tiles


@pytest.mark.parametrize(("height", "width"), [(200, 200), (201, 200), (1000, 37), (640, 481), (8, 3000)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_tiles_cover_everything_and_overlap(height, width, overlap):
    covered = np.zeros((height, width), int)
    for tile in tiles(height, width, 200, overlap):
        assert (tile.height, tile.width) == (min(200, height), min(200, width))
        covered[tile.window] += 1
    assert covered.min() >= 1
    for length in (height, width):
        steps = np.diff(starts(length, 200, overlap))
        assert (steps <= np.ceil(200 * (1 - overlap))).all()


def test_pictures_are_cut_up_where_they_are_much_larger():
    assert not is_tiled(200, 400, 200, "auto")
    assert is_tiled(200, 401, 200, "auto")
    assert is_tiled(200, 201, 200, True)
    assert not is_tiled(200, 200, 200, True)
    assert not is_tiled(9000, 9000, 200, False)


def test_blending_tiles_of_one_picture_gives_the_picture():
    rng = np.random.default_rng(0)
    whole = rng.random((130, 310)).astype(np.float32)
    blend = Blend(*whole.shape, overlap=0.3)
    for tile in tiles(*whole.shape, 100, 0.3):
        blend.add(tile, whole[tile.window])
    np.testing.assert_allclose(blend.mean(), whole, atol=1e-5)


def test_tiles_that_disagree_meet_without_a_step():
    blend = Blend(50, 160, overlap=0.4)
    for value, tile in enumerate(tiles(50, 160, 100, 0.4)):
        blend.add(tile, np.full((tile.height, tile.width), float(value), np.float32))
    row = blend.mean()[25]
    assert (row[0], row[-1]) == (0, 1)
    assert np.abs(np.diff(row)).max() < 0.06  # 1 over an overlap of 40 pixels


def test_windows_show_the_whole_defect_of_a_large_support():
    mask = np.zeros((900, 1200), bool)
    mask[20:60, 30:50] = mask[700:730, 1100:1190] = True
    mask[400:470, 500:900] = True  # wider than a window
    windows = support_windows(mask, 200)
    seen = np.zeros_like(mask)
    for window in windows:
        assert (window.height, window.width) == (200, 200)
        assert mask[window.window].any()
        seen[window.window] = True
    assert (seen | ~mask).all()


def test_windows_of_a_ring():
    mask = np.zeros((900, 900), np.uint8)
    cv2.circle(mask, (450, 450), 400, 1, 3)
    assert all(mask[w.window].any() for w in support_windows(mask == 1, 100))


# ---------------------------------------------------------------------- regions


def masks():
    rng = np.random.default_rng(0)
    for number in range(60):
        height, width = (int(n) for n in rng.integers(1, 40, 2))
        noise = rng.random((height, width)).astype(np.float32)
        yield noise < rng.uniform(0.1, 0.95) if number % 2 else cv2.GaussianBlur(noise, (5, 5), 0) > 0.5


def filled(points: list[int], height: int, width: int) -> np.ndarray:
    """Pixels whose centre a horizontal ray leaves through an odd number of the polygon's edges."""
    corners = list(zip(points[::2], points[1::2]))
    inside = np.zeros((height, width), int)
    for (x, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        assert x == x1 or y0 == y1  # along pixel edges
        inside[min(y0, y1) : max(y0, y1), : x if x == x1 else 0] += 1
    return inside % 2 == 1


def test_an_outline_fills_to_exactly_its_region_holes_and_all():
    for mask in masks():
        for region in find_regions(mask, np.ones(mask.shape, np.float32)):
            left, top, width, height = region.box
            expected = np.zeros(mask.shape, bool)
            expected[top : top + height, left : left + width] = region.inside
            np.testing.assert_array_equal(filled(polygon(region), *mask.shape), expected)


def test_pycocotools_reads_an_outline_as_its_region():
    coco = pytest.importorskip("pycocotools.mask", reason="pip install '.[test]'")
    for mask in masks():
        regions = find_regions(mask, np.ones(mask.shape, np.float32))
        total = np.zeros(mask.shape, bool)
        for region in regions:
            encoded = coco.merge(coco.frPyObjects([polygon(region)], *mask.shape))
            assert coco.area(encoded) == region.area
            assert coco.toBbox(encoded).tolist() == list(region.box)
            total |= coco.decode(encoded) == 1
        np.testing.assert_array_equal(total, mask)


def test_regions_say_where_how_large_and_how_sure():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 3:9] = mask[10, 20] = mask[11, 21] = True
    probability = np.where(mask, 0.75, 0.1).astype(np.float32)
    probability[2:5, 3:9] = 0.9
    large, corners = find_regions(mask, probability)
    assert (large.box, large.area) == ((3, 2, 6, 3), 18)
    assert large.confidence == pytest.approx(0.9)
    assert (corners.box, corners.area) == ((20, 10, 2, 2), 2)
    kept = find_regions(mask, probability, min_area=3)
    assert [region.area for region in kept] == [18]
    assert without_small(mask, kept).sum() == 18


# ---------------------------------------------------------------------- supports


def pair(folder, image="a.jpg", mask="a.png", seed=0):
    picture_, truth = picture(seed)
    save(folder / image, picture_)
    save(folder / mask, truth * 255)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a_mask.png"),
        ("a.png", "a_mask.png"),
        ("a.bmp", "a-mask.png"),
        ("a.png", "a_gt.png"),
    ],
)
def test_pairs_in_one_folder(image, mask, tmp_path):
    pair(tmp_path, image, mask)
    (file,), category = find_supports(str(tmp_path))
    assert (file.image.name, file.mask.name, category) == (image, mask, None)
    supports = read_supports(str(tmp_path))
    assert set(np.unique(supports.masks[0])) == {0, 1}


def test_a_data_sets_folders_are_supports(tmp_path):
    write_folder(tmp_path / "set", classes=("crack",))
    for folder in ("set", "set/crack"):
        files, category = find_supports(str(tmp_path / folder))
        assert [f.image.name for f in files] == ["crack_1.jpg", "crack_2.jpg", "crack_3.jpg"]
        assert category == "crack"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "holds no annotated pictures"),
        (
            lambda d: save(d / "a.jpg", picture(0)[0]),
            r"a\.jpg: missing mask: there is no a\.png or a_mask\.png",
        ),
        (lambda d: write_folder(d), r"holds 3 classes \(a, b, c\), and one prediction marks one of them"),
        (lambda d: (pair(d), pair(d, "a.bmp", "b.png")), "missing mask|duplicated name"),
        (lambda d: (pair(d), save(d / "a.png", picture(0)[1] * 0)), "empty mask"),
        (lambda d: (pair(d), save(d / "a.png", picture(0, 20, 30)[1] * 255)), "size mismatch"),
        (lambda d: (pair(d), (d / "a.jpg").write_bytes(b"no picture")), "unreadable file"),
        (lambda d: (pair(d), save(d / "a.png", picture(0)[1] * 100)), "unexpected mask values"),
    ],
)
def test_what_is_wrong_with_supports_is_said(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        read_supports(str(tmp_path))


# ---------------------------------------------------------------------- queries


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(root, pattern=""):
    return [query.name for query in find_queries(os.path.join(root, pattern))]


def test_queries_keep_their_folders_and_never_share_a_result(tmp_path):
    touch(tmp_path, "1/a.jpg", "2/a.jpg", "2/a.png", "2/A.bmp", "b10.jpg", "b9.JPEG")
    touch(tmp_path, ".hidden/c.jpg", "notes.txt")
    queries = find_queries(str(tmp_path))
    assert [q.name for q in queries] == ["1/a.jpg", "2/A.bmp", "2/a.jpg", "2/a.png", "b9.JPEG", "b10.jpg"]
    outputs = [q.output for q in queries]
    assert len({name.casefold() for name in outputs}) == 6
    assert outputs[0] == "1/a"
    assert outputs[2] == "2/a.jpg"


def test_masks_of_a_data_set_are_no_queries(tmp_path):
    write_folder(tmp_path, classes=("crack",), per_class=2)
    assert found(tmp_path) == ["crack/Images/crack_1.jpg", "crack/Images/crack_2.jpg"]


def test_patterns_and_single_pictures(tmp_path):
    touch(tmp_path, "x/a1.jpg", "x/a2.jpg", "x/b.jpg", "y/a3.jpg")
    assert found(tmp_path, "x/a*.jpg") == ["a1.jpg", "a2.jpg"]
    assert found(tmp_path, "*/a*.jpg") == ["x/a1.jpg", "x/a2.jpg", "y/a3.jpg"]
    assert found(tmp_path, "**/*.jpg") == ["x/a1.jpg", "x/a2.jpg", "x/b.jpg", "y/a3.jpg"]
    assert found(tmp_path, "x/b.jpg") == ["b.jpg"]
    for nothing, message in (("z", "does not exist"), ("*.bmp", "matches no pictures")):
        with pytest.raises(UserError, match=message):
            found(tmp_path, nothing)


def test_masks_beside_pictures_are_no_queries_unless_they_are_named(tmp_path):
    touch(tmp_path, "x.png", "x_mask.png", "lone_mask.png", "Thumbs.db", ".hidden.png")
    assert found(tmp_path) == ["lone_mask.png", "x.png"]
    assert found(tmp_path, "x_mask.png") == ["x_mask.png"]


def test_supports_keep_ignored_pixels_and_give_their_range_of_values(tmp_path):
    image, mask = picture(0)
    save(tmp_path / "a.png", image.astype(np.uint16) * 100)
    values = mask.copy()
    values[0] = 255
    save(tmp_path / "a_mask.png", values)
    supports = read_supports(str(tmp_path), mask_values={"defect": [1], "ignore": [255]})
    assert (supports.masks[0][0] == 255).all()
    assert supports.value_range == (image.min() * 100.0, image.max() * 100.0)
    assert supports.images[0].max() == 255


def test_sixteen_bits_agree_with_a_threshold_of_a_half():
    half = np.float32(0.5)
    around = np.array([0, np.nextafter(half, half - 1), half, np.nextafter(half, half + 1), 1], np.float32)
    np.testing.assert_array_equal(sixteen_bits(around) > 32767, around > 0.5)
    assert sixteen_bits(around)[[0, -1]].tolist() == [0, 65535]
