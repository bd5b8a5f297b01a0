"""The reader: layouts, classes, folds, masks, and what is forgiven with a note."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cpanet.data import load_dataset, resolve_auto
from cpanet.data.catalog import FSSD12, METAL8, equal_runs
from cpanet.data.folder import list_pictures, natural_key
from cpanet.data.images import decode_mask, read_header, read_image
from cpanet.errors import UserError
from tests.datasets import exif, labelled, picture, save, write_folder
from tests.shared import shared


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def load(root: Path, **options):
    return load_dataset("folder", root, **options)


def rename_first(root: Path, name: str) -> None:
    for folder, suffix in (("Images", "jpg"), ("GT", "png")):
        (root / f"a/{folder}/a_1.{suffix}").rename(root / f"a/{folder}/{name}.{suffix}")


def write_fssd12(root: Path) -> Path:
    return write_folder(root, FSSD12.classes, per_class=2)


def test_a_folder_is_read_with_its_classes_images_and_masks(tmp_path):
    root = write_folder(tmp_path / "steel", ("b", "a"))
    dataset = load(root)
    assert dataset.name == "steel"
    assert dataset.classes == ("a", "b")
    assert dataset.names[:2] == ["a/Images/a_1.jpg", "a/Images/a_2.jpg"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    image, mask = picture(100)  # the first picture of the second class that was written, "a"
    assert dataset.images[0].shape == (40, 40, 3)
    assert dataset.images[0].dtype == np.uint8
    assert np.array_equal(dataset.masks[0], mask)
    assert abs(dataset.images[0][mask == 1].mean() - image[mask == 1].mean()) < 10  # JPEG


def test_colours_are_red_green_blue(root):
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 200
    (root / "a/Images/a_1.jpg").unlink()
    save(root / "a/Images/a_1.png", red)
    assert load(root).images[0][0, 0].tolist() == [200, 0, 0]


def test_names_sort_naturally():
    names = ["x10.jpg", "x2.jpg", "x1.jpg", "x.jpg", "a3b20.png", "a3b3.png"]
    assert sorted(names, key=natural_key) == ["a3b3.png", "a3b20.png", "x1.jpg", "x2.jpg", "x10.jpg", "x.jpg"]


def test_order_and_fingerprint_do_not_depend_on_the_file_system(tmp_path, monkeypatch):
    root = write_folder(tmp_path, per_class=4)
    before = load(root)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    after = load(root)
    assert after.names == before.names
    assert after.fingerprint == before.fingerprint


def test_the_fingerprint_changes_with_a_file_and_with_a_name(root):
    first = load(root).fingerprint
    save(root / "a/GT/a_1.png", picture(7)[1] * 255)
    second = load(root).fingerprint
    rename_first(root, "a_0")
    assert len({first, second, load(root).fingerprint}) == 3


def test_other_formats_and_suffixes_in_capitals_are_read(tmp_path):
    root = write_folder(tmp_path, per_class=6)
    for number, suffix in enumerate((".jpeg", ".png", ".bmp", ".tif", ".JPG"), 1):
        (root / f"a/Images/a_{number}.jpg").unlink()
        image = Image.fromarray(picture(number)[0])
        image.save(root / f"a/Images/a_{number}{suffix}")
    assert len(load(root)) == 18


@pytest.mark.parametrize("name", ["Kratzer_ä_é", "划痕", "with space", "ümlaut.with.dots", "x" * 200])
def test_file_names_of_any_kind_are_read(root, name):
    rename_first(root, name)
    assert f"a/Images/{name}.jpg" in load(root).names


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_to_pictures_and_masks(tmp_path, suffix, orientation):
    stored, tags = picture(0, 20, 40)[0], exif(orientation)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(stored).save(path, exif=tags)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    header = read_header(path)
    assert header.size == shown.shape[1::-1]
    assert header.orientation == orientation
    assert np.array_equal(read_image(path), shown)
    grey = tmp_path / "mask.png"
    Image.fromarray(stored[..., 0]).save(grey, exif=tags)
    assert decode_mask(grey.read_bytes()).shape == shown.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_16_bits_are_turned_like_others(tmp_path, orientation):
    deep, plain = tmp_path / "deep.png", tmp_path / "plain.png"
    grey = picture(0, 20, 40)[0][..., 0]
    Image.fromarray(grey).save(plain, exif=exif(orientation))
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, exif=exif(orientation))
    assert np.array_equal(read_image(deep, (0, 65535)), read_image(plain))


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_of_16_bits_share_the_range_of_the_set(root, colour):
    image = picture(0)[0] if colour else picture(0)[0][..., 0]
    eight = load(root).fingerprint
    for number, (scale, offset) in enumerate(((16, 100), (40, 500)), 1):
        (root / f"a/Images/a_{number}.jpg").unlink()
        save(root / f"a/Images/a_{number}.png", image.astype(np.uint16) * scale + offset)
    dataset = load(root)
    low, high = dataset.value_range
    assert (low, high) == (image.min() * 16.0 + 100, image.max() * 40.0 + 500)
    expected = np.rint((image.astype(np.float64) * 40 + 500 - low) * 255 / (high - low))
    expected = expected if colour else np.repeat(expected[..., None], 3, axis=2)
    assert np.abs(dataset.images[1] - expected).max() <= 1
    assert any("more than 8 bits: 2" in note for note in dataset.notes)
    assert dataset.fingerprint != eight
    assert dataset.images[0].max() < dataset.images[1].max() == 255


@pytest.mark.parametrize(
    ("mode", "format_"),
    [
        ("F", "TIFF"),
        ("I", "TIFF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        *((m, "PNG") for m in ("L", "P", "RGBA", "LA", "1")),
    ],
)
def test_pictures_of_other_kinds_are_converted(root, mode, format_):
    Image.fromarray(picture(0)[0]).convert(mode).save(root / "a/Images/a_1.jpg", format_)
    image = load(root).images[0]
    assert image.dtype == np.uint8
    assert image.shape == (40, 40, 3)
    grey = picture(0)[0].mean(axis=2)
    assert np.corrcoef(image.mean(axis=2).ravel(), grey.ravel())[0, 1] > (0.4 if mode == "1" else 0.9)


# --- masks -------------------------------------------------------------------------------------------------


def test_mask_values_say_what_is_defect_and_what_is_ignored(root):
    labelled(root)
    with pytest.raises(UserError, match=r"data\.mask_values='\{defect: \[1\], ignore: \[255\]\}'") as error:
        load(root)
    assert "mask_threshold" not in str(error.value)
    dataset = load(root, mask_values={"defect": [1], "ignore": [255]})
    assert set(np.unique(dataset.masks[0])) == {0, 1, 255}
    assert (dataset.masks[0][0] == 255).all()
    (root / "dataset.yaml").write_text("mask_values: {defect: [1], ignore: [255]}")
    assert np.array_equal(load(root).masks[0], dataset.masks[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"defect": []}, "names no value of the defect"),
        ({"defect": [1], "ignore": [1]}, "gives 1 two meanings"),
        ({"defect": [256]}, "whole numbers from 0 to 255"),
        ({"defects": [1]}, "unknown part 'defects'"),
    ],
)
def test_wrong_mask_values_are_explained(root, values, words):
    with pytest.raises(UserError, match=words):
        load(root, mask_values=values)


def test_a_value_that_mask_values_does_not_name_is_refused(root):
    with pytest.raises(UserError, match=r"holds 255, of which data\.mask_values says nothing"):
        load(root, mask_values={"defect": [1]})


def in_colours(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


MASKS = {
    "palette in colours, by its indices": in_colours,
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
    **{m: lambda mask, m=m: Image.fromarray(mask * 255).convert(m) for m in ("1", "P", "RGB", "RGBA")},
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_other_pixel_types_are_read(root, kind):
    mask = picture(0)[1]
    MASKS[kind](mask).save(root / "a/GT/a_1.png")
    assert np.array_equal(load(root).masks[0], mask)


@pytest.mark.parametrize("name", ["a_1_mask.png", "a_1.bmp", "a_1_gt.png", "a_1.tif"])
def test_masks_of_a_near_name_are_taken_and_named(root, name):
    (root / "a/GT/a_1.png").unlink()
    save(root / "a/GT" / name, picture(0)[1] * 255)
    dataset = load(root)
    assert np.array_equal(dataset.masks[0], picture(0)[1])
    assert f"masks of another name than NAME.png: a/GT/{name}" in dataset.notes


def test_a_listing_of_pictures_leaves_out_masks_and_other_files(tmp_path):
    for name in ("x.png", "x_mask.png", "y_mask.png", "Thumbs.db", ".z.png", "z.txt"):
        (tmp_path / name).touch()
    assert list_pictures(tmp_path) == ["x.png", "y_mask.png"]


def test_masks_of_0_and_1_are_accepted_with_a_note(root):
    mask = picture(0)[1]
    save(root / "a/GT/a_1.png", mask)
    dataset = load(root)
    assert np.array_equal(dataset.masks[0], mask)
    assert "masks of 0 and 1 (read as 0 and 255): 1" in dataset.notes


def test_a_mask_threshold_decides_for_soft_masks(root):
    soft = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (40, 1))
    save(root / "a/GT/a_1.png", soft)
    assert np.array_equal(load(root, mask_threshold=127).masks[0], soft > 127)


def test_stray_files_are_left_alone_and_named(root):
    (root / "a/Images/Thumbs.db").write_bytes(b"x")
    (root / "a/Images/.hidden.jpg").write_bytes(b"x")
    (root / "a/Nd").mkdir()
    (root / "readme.txt").write_text("x")
    (root / "not a class").mkdir()
    save(root / "a/GT/extra.png", picture(0)[1] * 255)
    dataset = load(root)
    assert len(dataset) == 9
    assert dataset.notes == [
        "ignored, no image by its name: a/Images/Thumbs.db",
        "ignored, masks without an image: a/GT/extra.png",
    ]


# --- folds -------------------------------------------------------------------------------------------------


def test_folds_are_equal_runs_of_classes(tmp_path):
    assert equal_runs("abcdef", 3) == (("a", "b"), ("c", "d"), ("e", "f"))
    root = write_folder(tmp_path, ("a", "b", "c", "d", "e"))
    assert load(root, folds=2).folds == (("a", "b", "c"), ("d", "e"))


def test_dataset_yaml_names_folds_classes_and_threshold(root):
    (root / "dataset.yaml").write_text(
        "name: mine\nclasses: [c, a, b]\nfolds: [[a, c], [b]]\nmask_threshold: 3\n"
    )
    dataset = load(root)
    assert (dataset.name, dataset.classes) == ("mine", ("c", "a", "b"))
    split = dataset.split(0)
    assert (split.train_classes, split.test_classes) == ((2,), (0, 1))
    assert set(split.train_indices) | set(split.test_indices) == set(range(9))
    assert not set(split.train_indices) & set(split.test_indices)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("folds: [[a, nowhere]]", "nowhere"),
        ("folds: [[a, a]]", "twice"),
        ("folds: [[a, b, c]]", "none to train on"),
        ("folds: []", "list of lists"),
        ("folds: a", "list of lists"),
        ("folds: [[1]]", "list of lists of class folders; YAML reads 1 as a number: write '1' in quotes"),
        ("folds: [[a], [no]]", "YAML reads no as yes or no: write 'no' in quotes"),
        ("classes: [a, 01]", "write '01' in quotes"),
        ("mask_values: 1", "mask_values must be a mapping"),
        ("mask_values: {defect: [1]}\nmask_threshold: 3", "exclude each other"),
        ("fold: [[a]]", "unknown key 'fold'"),
        ("classes: [a, a]", "different class folders"),
        ("classes: [a, ../b]", "different class folders"),
        ("mask_threshold: 255", "from 0 to 254"),
        ("mask_threshold: true", "from 0 to 254"),
        ("name: [a]", "must be a text"),
        ("- a", "keys and values"),
        ("a: [", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_a_wrong_dataset_yaml_is_explained(root, text, words):
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(UserError, match=r"dataset\.yaml") as error:
        load(root)
    assert words in str(error.value)


def test_a_dataset_yaml_that_is_no_file_is_refused(root):
    os.mkfifo(root / "dataset.yaml")
    with pytest.raises(UserError, match="is not a text file"):
        load(root)


def test_dataset_yaml_is_plain_data(root):
    (root / "dataset.yaml").write_text("name: ${oc.env:HOME}\n")
    assert load(root).name == "${oc.env:HOME}"


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="fold=3: mine has folds 0 to 2"):
        load(write_folder(tmp_path / "mine")).split(3)


@pytest.mark.parametrize("folds", [1, 4])
def test_an_impossible_number_of_folds_is_refused(tmp_path, folds):
    with pytest.raises(UserError, match="2 to 3 folds"):
        load(write_folder(tmp_path), folds=folds)


# --- FSSD-12 and metal8 ------------------------------------------------------------------------------------


def test_fssd12_has_the_published_classes_and_folds(tmp_path):
    dataset = load_dataset("fssd12", write_fssd12(tmp_path))
    assert dataset.classes[0] == "Steel_Am"
    assert dataset.classes[11] == "Steel_Se"
    assert dataset.folds[1] == ("Steel_Os", "Steel_Ws", "Steel_Pa", "Steel_Pk")
    assert dataset.split(2).test_classes == (8, 9, 10, 11)


def test_fssd12_with_a_lower_case_l_is_the_same_data_set(tmp_path):
    root = write_fssd12(tmp_path)
    before = load_dataset("fssd12", root)
    (root / "Steel_Ia").rename(root / "Steel_la")
    after = load_dataset("fssd12", root)
    assert after.names == before.names
    assert after.fingerprint == before.fingerprint
    assert "folder Steel_la is read as Steel_Ia" in after.notes


def test_fssd12_with_a_missing_image_says_so(tmp_path):
    root = write_folder(tmp_path, FSSD12.classes, per_class=3)
    (root / "Steel_Rp/Images/Steel_Rp_2.jpg").unlink()
    dataset = load_dataset("fssd12", root)
    assert len(dataset) == 35
    assert "Steel_Rp has 2 images, the published set 50" in dataset.notes
    assert "ignored, masks without an image: Steel_Rp/GT/Steel_Rp_2.png" in dataset.notes


def test_fssd12_masks_count_255_alone_and_say_so(tmp_path):
    root = write_fssd12(tmp_path)
    mask = np.zeros((40, 40), np.uint8)
    mask[:10], mask[10:20] = 255, 254
    save(root / "Steel_Am/GT/Steel_Am_1.png", mask)
    dataset = load_dataset("fssd12", root)
    assert dataset.masks[0].sum() == 400
    assert "masks with grey values between 0 and 255 (only 255 counts as defect): 1" in dataset.notes


def test_a_missing_class_is_named(tmp_path):
    root = write_fssd12(tmp_path)
    shutil.rmtree(root / "Steel_Pk")
    with pytest.raises(UserError, match="Steel_Pk: missing class"):
        load_dataset("fssd12", root)


def test_auto_takes_fssd12_where_it_is_and_the_embedded_set_where_nothing_is_given(tmp_path):
    root = write_fssd12(tmp_path / "FSSD-12")
    assert resolve_auto(root)[:2] == ("fssd12", root)
    assert resolve_auto(tmp_path)[:2] == ("fssd12", root)
    assert resolve_auto(None)[:2] == ("embedded", None)


def test_auto_never_replaces_a_folder_that_was_given_by_something_else(tmp_path):
    with pytest.raises(UserError, match="does not hold the class folders of FSSD-12"):
        resolve_auto(write_folder(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        resolve_auto(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "root", "words"),
    [
        ("fssd12", None, "data.root is not set"),
        ("folder", "nowhere", "does not exist"),
        ("folder", "file", "is not a folder"),
        ("folder", ".", "needs at least 2"),
        ("fssd13", ".", "Choose one of fssd12, embedded, metal8, folder"),
    ],
)
def test_a_wrong_name_or_root_is_explained(tmp_path, name, root, words):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as error:
        load_dataset(name, None if root is None else tmp_path / root)
    assert words in str(error.value)


def test_metal8_is_read_whole():
    dataset = load_dataset("metal8", shared("data/metal8"), min_images=6)
    assert dataset.classes == METAL8.classes
    assert np.bincount(dataset.labels).tolist() == [50, 50, 50, 32, 50, 50, 50, 50]
    assert len(dataset.split(0).test_indices) == 100
    assert dataset.notes == []
    assert dataset.fingerprint.startswith("15cba130a6536d04")
