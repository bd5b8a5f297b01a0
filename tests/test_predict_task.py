"""``python run.py task=predict``: a folder in, masks, tables and COCO annotations out."""

from __future__ import annotations

import gc
import json
import shutil
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cpanet.data import read_image
from tests.checkpoints import TINY, embedded_class, trained_run
from tests.datasets import picture, save
from tests.hydra_app import run_here
from tests.sweep_runs import only, rows

CPU = ("task=predict", "device=cpu")
LESS = ("predict.overlays=false", "predict.probabilities=false")


@pytest.fixture(scope="module")
def support(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    for i in range(3):
        image, mask = picture(i)
        save(folder / f"shot{i}.jpg", image)
        save(folder / f"shot{i}.png", mask * 255)
    return folder


def given(support: object, query: object = "q") -> tuple[str, str, str]:
    return f"checkpoint={trained_run()}", f"support={support}", f"query={query}"


def predict(cwd: Path, *arguments: str) -> Path:
    """The run directory of a prediction that has to succeed."""
    assert run_here(cwd, *CPU, *arguments) == 0
    return only(cwd / "outputs")


def check_coco(path: Path) -> dict:
    """The structure that pycocotools, CVAT and Label Studio rely on."""
    content = json.loads(path.read_text("utf-8"))
    assert {"info", "licenses", "images", "annotations", "categories"} <= content.keys()
    (category,) = content["categories"]
    images = {image["id"]: image for image in content["images"]}
    assert len(images) == len(content["images"])
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    for image in images.values():
        assert isinstance(image["file_name"], str)
        assert image["height"] > 0 < image["width"]
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        assert annotation["category_id"] == category["id"]
        assert annotation["iscrowd"] == 0
        left, top, width, height = annotation["bbox"]
        assert 0 <= left <= left + width <= image["width"]
        assert 0 <= top <= top + height <= image["height"]
        (points,) = annotation["segmentation"]
        assert len(points) >= 8
        assert len(points) % 2 == 0
        assert (min(points[::2]), max(points[::2])) == (left, left + width)
        assert (min(points[1::2]), max(points[1::2])) == (top, top + height)
        assert 0 < annotation["area"] <= width * height
    return content


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A folder as found on a disk: sub-folders, formats, a large picture, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("new")
    for i, name in enumerate(("a.jpg", "line 1/a.jpg", "line 1/a.png", "line 2/钢.bmp")):
        save(folder / name, picture(20 + i, 60 + 8 * i, 90)[0])
    save(folder / "grey.png", picture(30)[0][..., 0])
    opaque = np.dstack([picture(31)[0], np.full((40, 40), 255, np.uint8)])
    Image.fromarray(opaque).save(folder / "opaque.png")
    Image.fromarray(np.dstack([picture(31)[0], picture(31)[1] * 200])).save(folder / "see_through.png")
    turned = Image.fromarray(picture(32, 40, 70)[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    save(folder / "large.png", picture(33, 500, 700)[0])
    cv2.imwrite(str(folder / "deep.png"), picture(34)[0].astype(np.uint16) * 256)
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def done(support, mixed, tmp_path_factory) -> Path:
    cwd = tmp_path_factory.mktemp("predict")
    return predict(cwd, *given(support, mixed))


USABLE = ["a.jpg", "deep.png", "grey.png", "large.png", "line 1/a.jpg", "line 1/a.png", "line 2/钢.bmp"]
USABLE += ["opaque.png", "turned.jpg"]


def test_every_usable_picture_has_its_files_and_its_row(done, mixed):
    table = rows(done / "predictions.csv")
    assert sorted(row["image"] for row in table) == USABLE
    assert len({row["mask"] for row in table}) == len(USABLE)
    for row in table:
        image = read_image(mixed / row["image"])  # as it is shown: turned by its EXIF orientation
        mask, probability, overlay = (
            cv2.imread(str(done / row["mask"].replace("masks", folder, 1)), cv2.IMREAD_UNCHANGED)
            for folder in ("masks", "probabilities", "overlays")
        )
        assert mask.shape == probability.shape == overlay.shape[:2] == image.shape[:2]
        assert (mask.dtype, probability.dtype) == (np.uint8, np.uint16)
        assert set(np.unique(mask)) <= {0, 255}
        np.testing.assert_array_equal(mask == 255, probability > 32767)
        area = np.count_nonzero(mask)
        assert [int(row[key]) for key in ("height", "width", "area")] == [*mask.shape, area]
        assert float(row["fraction"]) == pytest.approx(area / mask.size, abs=1e-6)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        assert int(row["regions"]) == count - 1
        boxes = sorted(" ".join(map(str, box)) for box in stats[1:, :4])
        assert sorted(filter(None, row["boxes"].split(";"))) == boxes
        if area:
            mean = probability[mask == 255].mean() / 65535
            assert float(row["mean_confidence"]) == pytest.approx(mean, abs=1e-3)


def test_what_cannot_be_used_is_listed_with_its_reason(done, capfd):
    reasons = {row["image"]: row["reason"] for row in rows(done / "skipped.csv")}
    assert set(reasons) == {"broken.jpg", "empty.jpg", "see_through.png"}
    assert "empty" in reasons["empty.jpg"]
    assert "transparent" in reasons["see_through.png"]
    result = json.loads((done / "result.json").read_text())
    assert (result["status"], result["pictures"], result["skipped"]) == ("completed", len(USABLE), 3)
    assert (result["image_size"], result["tile"]) == (32, 200)


def test_what_was_chosen_is_recorded(done):
    result = json.loads((done / "result.json").read_text())
    assert result["threshold"]["probability"] == 0.5
    assert result["threshold"]["how"].startswith("threshold: ")
    assert len(result["support_iou_by_others"]) == len(result["supports"]) == 3
    assert result["no_defect"] is None
    for row in rows(done / "predictions.csv"):
        assert 0 <= float(row["score"]) <= 1
        assert row["answer"] == ("defect" if int(row["area"]) else "no defect")


def test_with_clean_pictures_a_picture_may_have_no_defect(support, tmp_path, capfd):
    """The limit is the highest score of the few clean pictures; they themselves do not exceed it."""
    for i in range(4):
        image, mask = picture(60 + i)
        image[mask == 1] -= 90
        save(tmp_path / "clean" / f"{i}.bmp", image)
        save(tmp_path / "q" / f"clean{i}.bmp", image)
        save(tmp_path / "q" / f"defect{i}.bmp", picture(70 + i)[0])
    (tmp_path / "clean" / "broken.jpg").write_bytes(b"x")
    out = predict(tmp_path, *given(support), "clean=clean")
    said = capfd.readouterr().out
    assert "broken.jpg" in said
    assert "chosen on 4 clean pictures: expect false alarms on 20.0% of clean pictures like these" in said
    assert "needs 19 clean pictures or more" in said
    limit = json.loads((out / "result.json").read_text())["no_defect"]
    table = rows(out / "predictions.csv")
    clean = [row for row in table if "clean" in row["image"]]
    assert limit["score"] == pytest.approx(max(float(row["score"]) for row in clean), abs=1e-3)
    for row in table:
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert row["answer"] == ("defect" if mask.any() else "no defect")
        if float(row["score"]) <= limit["score"]:
            assert not mask.any()
    assert [row["answer"] for row in clean] == ["no defect"] * 4


def test_a_second_prediction_into_a_directory_is_refused(support, tmp_path, capfd):
    save(tmp_path / "q" / "a.jpg", picture(50)[0])
    arguments = (*given(support), "hydra.run.dir=out")
    assert run_here(tmp_path, *CPU, *arguments) == 0
    before = sorted((tmp_path / "out").rglob("*"))
    assert run_here(tmp_path, *CPU, *arguments) == 2
    assert "holds a run already (result.json, predictions.csv). " in capfd.readouterr().err
    (tmp_path / "out" / "result.json").unlink()  # as after a kill
    assert run_here(tmp_path, *CPU, *arguments) == 2
    assert sorted((tmp_path / "out").rglob("*")) == [path for path in before if path.name != "result.json"]


def test_annotations_are_coco(done):
    content = check_coco(done / "annotations.json")
    table = {row["image"]: row for row in rows(done / "predictions.csv")}
    assert [image["file_name"] for image in content["images"]] == list(table)
    for image in content["images"]:
        regions = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert len(regions) == int(table[image["file_name"]]["regions"])
        assert sum(a["area"] for a in regions) == int(table[image["file_name"]]["area"])


def test_pycocotools_gives_the_masks_back(done):
    module = pytest.importorskip("pycocotools.coco", reason="pip install '.[test]'")
    coco = module.COCO(str(done / "annotations.json"))
    for row in rows(done / "predictions.csv"):
        mask = cv2.imread(str(done / row["mask"]), cv2.IMREAD_UNCHANGED) == 255
        (image,) = [i for i in coco.dataset["images"] if i["file_name"] == row["image"]]
        total = np.zeros_like(mask)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            total |= coco.annToMask(annotation) == 1
        np.testing.assert_array_equal(total, mask)


def test_the_directory_is_named_by_what_was_asked_for(done, support, mixed):
    assert done.name.startswith("task=predict,checkpoint=")
    assert done.name.endswith(f",support={support.name},query={mixed.name}")


def test_a_data_sets_class_is_compared_with_its_masks(support, tmp_path):
    """The queries' masks lie beside them: the IoU is told, pictures learnt from left out."""
    folder = embedded_class("scratch")
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in (1, 2):
        shutil.copy(folder / "Images" / f"scratch_{i}.png", shots / f"s{i}.png")
        shutil.copy(folder / "GT" / f"scratch_{i}.png", shots / f"s{i}_mask.png")
    pictures = (f"support={shots}", f"query={folder}/Images/scratch_?.png", "predict.category=scratch")
    out = predict(tmp_path, "method=prototype", *TINY[2:], *pictures)
    table = rows(out / "predictions.csv")
    assert len(table) == 9
    assert [row["is_support"] for row in table] == ["yes", "yes", *["no"] * 7]
    assert [bool(row["iou"]) for row in table] == [False, False, *[True] * 7]
    inter, union = 0, 0
    for row in table[2:]:
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED) == 255
        truth = cv2.imread(str(folder / "GT" / row["image"]), cv2.IMREAD_UNCHANGED) == 255
        inter, union = inter + np.sum(mask & truth), union + np.sum(mask | truth)
    result = json.loads((out / "result.json").read_text())
    assert result["iou"] == pytest.approx(inter / union)
    assert result["compared"] == 7
    assert json.loads((out / "annotations.json").read_text())["categories"][0]["name"] == "scratch"


def test_less_is_written_where_less_is_wanted(support, tmp_path):
    save(tmp_path / "q" / "a.jpg", picture(50)[0])
    out = predict(tmp_path, *given(support), *LESS, "predict.threshold=0.999")
    names = {path.name for path in out.iterdir()}
    assert names >= {"masks", "predictions.csv", "annotations.json", "result.json"}
    assert not names & {"overlays", "probabilities", "skipped.csv"}


def test_more_pictures_need_no_more_memory(support, tmp_path):
    def peak(count: int) -> tuple[int, int]:
        """Python's own peak in bytes and this process's pages."""
        folder = tmp_path / f"q{count}"
        for i in range(count):
            save(folder / f"{i}.bmp", picture(i % 5, 150, 150)[0])
        gc.collect()
        tracemalloc.start()
        assert run_here(tmp_path, *CPU, *given(support, folder)) == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    peak(2)  # whatever is imported and kept
    few, few_resident = peak(6)
    many, many_resident = peak(24)
    assert many - few < 500_000  # a picture and its results take 300 kB
    assert many_resident - few_resident < 20_000_000


def test_an_interrupted_prediction_keeps_what_is_done(support, tmp_path, monkeypatch):
    from cpanet.predict import Segmenter

    for i in range(9):
        save(tmp_path / "q" / f"{i}.jpg", picture(i)[0])
    real, calls = Segmenter.predict_proba, []

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(Segmenter, "predict_proba", interrupted)
    assert run_here(tmp_path, *CPU, *given(support)) == 130
    out = only(tmp_path / "outputs")
    assert len(rows(out / "predictions.csv")) == 4
    assert len(check_coco(out / "annotations.json")["images"]) == 4
    assert json.loads((out / "result.json").read_text())["status"] == "interrupted"


# ---------------------------------------------------------------------- what a user can get wrong


def test_nothing_readable_is_an_error(support, tmp_path, capfd):
    (tmp_path / "q").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "q" / name).write_bytes(b"x")
    assert run_here(tmp_path, *CPU, *given(support)) == 2
    assert "none of the 2 pictures can be used (skipped.csv): a.jpg is damaged" in capfd.readouterr().err


MISTAKES = [
    ({"checkpoint": None}, "checkpoint = null: task=predict needs one"),
    ({"checkpoint": "nowhere"}, "there is no such file or directory"),
    ({"support": None}, "support = null: give the annotated pictures"),
    ({"support": "nowhere"}, "does not exist"),
    ({"query": None}, "query = null: give the pictures to mark"),
    ({"query": "nowhere"}, "does not exist. Give a folder, a picture or a pattern"),
    ({"predict.threshold": "1.5"}, "predict.threshold = 1.5"),
    ({"predict.threshold": "often"}, 'predict.threshold = "often": must be auto, or a probability'),
    ({"clean": "nowhere"}, "nowhere does not exist. Give a folder, a picture or a pattern"),
    ({"predict.tiling": "often"}, "predict.tiling"),
    ({"predict.overlap": "1"}, "predict.overlap = 1"),
    ({"predict.treshold": "0.5"}, "Did you mean 'predict.threshold'?"),
    ({"backbone": "resnet50"}, 'backbone.name = "resnet50" (in the checkpoint: "vgg16"). Leave these out'),
    ({"model.width": "64"}, "model.width = 64 (in the checkpoint: 16)"),
    ({"data.image_size": "90"}, "must be a multiple of 8"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_end_in_one_message_before_anything_is_written(
    changes, message, support, mixed, tmp_path, capfd
):
    values = {"checkpoint": trained_run(), "support": support, "query": mixed, **changes}
    arguments = [f"{key}={value}" for key, value in values.items() if value is not None]
    assert run_here(tmp_path, *CPU, *arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_names_with_commas_spaces_and_equal_signs(support, tmp_path):
    run = tmp_path / "fold=0,seed=1"
    run.symlink_to(trained_run())
    save(tmp_path / "new pictures, 1" / "a.jpg", picture(1)[0])
    out = predict(tmp_path, f"checkpoint={run}", f"support={support}", "query=new pictures, 1")
    assert len(rows(out / "predictions.csv")) == 1


def test_a_file_of_weights_tells_its_network_by_itself(support, tmp_path):
    """Released ``.pth`` names, no configuration beside them: the paper's network, features and support masks as released."""
    from safetensors.numpy import save_file

    from cpanet.checkpoint.names import to_released
    from cpanet.checkpoint.weights import network_tensors

    run = trained_run("recipe.features=plain", "protocol=released_support_mask")
    tensors = network_tensors(run / "checkpoints" / "best.safetensors")
    save_file({to_released(n): tensor for n, tensor in tensors.items()}, str(tmp_path / "net.safetensors"))
    save(tmp_path / "q" / "a.jpg", picture(1)[0])
    bare = predict(tmp_path, "checkpoint=net.safetensors", "data.image_size=32", *given(support)[1:])
    result = json.loads((bare / "result.json").read_text())
    assert result["config"]["backbone"]["name"] == "vgg16"
    assert result["config"]["model"]["width"] == 16
    (tmp_path / "whole").mkdir()
    whole = predict(tmp_path / "whole", f"checkpoint={run}", f"support={support}", f"query={tmp_path}/q")
    name = "probabilities/a.png"
    np.testing.assert_array_equal(cv2.imread(str(bare / name), -1), cv2.imread(str(whole / name), -1))


def test_imagenet_weights_are_no_checkpoint(tmp_path, capfd):
    from safetensors.numpy import save_file

    save_file({"features.0.weight": np.zeros((64, 3, 3, 3), np.float32)}, str(tmp_path / "vgg.safetensors"))
    assert run_here(tmp_path, *CPU, "checkpoint=vgg.safetensors", "support=x", "query=y") == 2
    assert "ImageNet weights belong to backbone.weights" in capfd.readouterr().err


def test_a_sweep_of_predictions_is_refused(support, mixed, tmp_path, capfd):
    assert run_here(tmp_path, "-m", *CPU, *given(support, mixed), "predict.threshold=0.3,0.5") == 2
    assert "task=predict runs once a command" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_large_pictures_are_tiled_and_small_details_survive(support, tmp_path):
    """The large picture holds a small one at its own scale; only tiles see it as the supports were seen."""
    small = picture(3, 200, 200)[0]
    large = np.full((900, 1100, 3), 128, np.uint8)
    large[300:500, 450:650] = small
    save(tmp_path / "q" / "large.png", large)
    found = {}
    for tiling in ("auto", "false"):
        cwd = tmp_path / tiling
        cwd.mkdir()
        out = predict(cwd, *given(support, tmp_path / "q"), f"predict.tiling={tiling}")
        found[tiling] = cv2.imread(str(out / "probabilities" / "large.png"), -1)
    assert found["auto"].shape == found["false"].shape == (900, 1100)
    assert np.abs(found["auto"].astype(int) - found["false"]).max() > 100


def test_a_picture_of_more_than_25_megapixels_is_tiled(support, tmp_path):
    save(tmp_path / "q" / "wide.png", np.full((500, 51000), 128, np.uint8))
    out = predict(tmp_path, *given(support), *LESS, "predict.tile=6000", "predict.tiling=true")
    assert cv2.imread(str(out / "masks" / "wide.png"), -1).shape == (500, 51000)
    assert not (out / "skipped.csv").exists()
