"""Import of other annotations: label-coded masks, LabelMe, COCO; all problems at once, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpanet.data import load_dataset
from cpanet.data.__main__ import main
from cpanet.data.importing import import_dataset
from cpanet.errors import UserError
from tests.datasets import picture, save

SQUARE = [[5, 5], [20, 5], [20, 20], [5, 20]]


def write_labels(source: Path, folders: tuple[str, str] = ("images", "masks"), ignore: bool = False) -> Path:
    """Four pictures, each with an area of label 1 and one of label 2."""
    for number in range(4):
        values = np.zeros((40, 40), np.uint8)
        values[5:20, 5:20], values[25:35, 25:35] = 1, 2
        if ignore:
            values[0] = 255
        save(source / folders[0] / f"p{number}.jpg", picture(number)[0])
        save(source / folders[1] / f"p{number}.png", values)
    return source


def write_labelme(source: Path) -> Path:
    for number in range(4):
        save(source / f"p{number}.jpg", picture(number)[0])
        label = "dent" if number < 2 else "scratch"
        shapes = [{"label": label, "points": SQUARE, "shape_type": "polygon"}]
        (source / f"p{number}.json").write_text(json.dumps({"imagePath": f"p{number}.jpg", "shapes": shapes}))
    return source


def write_coco(source: Path) -> Path:
    images, annotations = [], []
    for number in range(4):
        save(source / "images" / f"p{number}.jpg", picture(number)[0])
        images.append({"id": number, "file_name": f"p{number}.jpg"})
        flat = [[value for point in SQUARE for value in point]]
        annotations.append({"image_id": number, "category_id": 1 + number // 2, "segmentation": flat})
    categories = [{"id": 1, "name": "dent"}, {"id": 2, "name": "scratch"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (source / "annotations.json").write_text(json.dumps(content))
    return source


@pytest.mark.parametrize("write", [write_labelme, write_coco])
def test_polygons_become_classes_that_can_be_read(tmp_path, write, capsys):
    source = write(tmp_path / "source")
    assert main(["import", str(source), str(tmp_path / "set")]) == 0
    out = capsys.readouterr().out
    assert "dent: 2 images with a mask" in out
    dataset = load_dataset("folder", tmp_path / "set", folds=2)
    assert dataset.classes == ("dent", "scratch")
    expected = np.zeros((40, 40), np.uint8)
    expected[5:21, 5:21] = 1
    assert np.array_equal(dataset.masks[0], expected)


def test_label_coded_masks_become_a_class_a_value(tmp_path):
    source = write_labels(tmp_path / "source")
    for number in (0, 1):  # of class 1 alone
        save(source / f"masks/p{number}.png", np.pad(np.full((10, 10), 1, np.uint8), 15))
    imported = import_dataset(source, tmp_path / "set")
    assert imported.form == "label-coded masks"
    assert imported.images == {"class_1": 2, "class_2": 2}
    assert "p2.jpg, p3.jpg" in next(note for note in imported.notes if "several classes" in note)
    dataset = load_dataset("folder", tmp_path / "set", folds=2)
    assert dataset.masks[0].sum() == 100
    other = dataset.masks[2]
    assert (other[25:35, 25:35] == 1).all()
    assert (other[5:20, 5:20] == 255).all()


def test_an_ignored_border_stays_ignored(tmp_path):
    import_dataset(write_labels(tmp_path / "source", ignore=True), tmp_path / "set")
    masks = [np.asarray(Image.open(path)) for path in (tmp_path / "set").glob("*/GT/*.png")]
    assert len(masks) == 4
    assert all((mask[0] == 128).all() for mask in masks)
    assert "ignore: [128]" in (tmp_path / "set/dataset.yaml").read_text()


def test_a_target_that_exists_is_refused(tmp_path):
    (tmp_path / "set" / "of mine").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        import_dataset(write_labels(tmp_path / "source"), tmp_path / "set")


def test_every_problem_is_named_and_nothing_is_left(tmp_path):
    source = write_labelme(tmp_path / "source")
    (source / "p0.jpg").write_bytes(b"")
    (source / "p1.json").write_text("{")
    (source / "p2.json").write_text(json.dumps({"imagePath": "p2.jpg", "shapes": [{"label": "x"}]}))
    (source / "p3.jpg").unlink()
    with pytest.raises(UserError) as error:
        import_dataset(source, tmp_path / "set")
    for name in ("p0.jpg", "p1.json", "p2.json", "p3.jpg"):
        assert name in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_of_nothing_known_is_explained(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match="neither a COCO file, LabelMe files nor pictures with masks"):
        import_dataset(tmp_path / "source", tmp_path / "set")
