"""Every rule that a data set can break: one message with all problems, each naming file and rule."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cpanet.data import load_dataset
from cpanet.data.__main__ import main
from cpanet.data.check import near_pairs
from cpanet.data.synthetic import png_chunk
from cpanet.errors import UserError
from tests.datasets import encoded, exif, labelled, picture, save, write_folder
from tests.shared import REPO

IMAGE, MASK = "a/Images/a_1.jpg", "a/GT/a_1.png"


Change = Callable[[Path], object]


def edit(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def put(name: str, data: bytes) -> Change:
    return edit(name, lambda _: data)


def cut(name: str, keep: float) -> Change:
    return edit(name, lambda data: data[: int(len(data) * keep)])


def damage(name: str, at: int) -> Change:
    return edit(name, lambda data: data[:at] + b"\xff" * 8 + data[at + 8 :])


def instead(make: Callable[[Path], object]) -> Change:
    """Something else than a file in an image's place."""
    return lambda root: ((root / IMAGE).unlink(), make(root / IMAGE))


def mask_of(values: np.ndarray) -> Change:
    return lambda root: save(root / MASK, values.astype(np.uint8))


def as_mode(mode: str, name: str, format_: str) -> Change:
    return lambda root: Image.fromarray(picture(0)[0]).convert(mode).save(root / name, format_)


def large(width: int, height: int) -> bytes:
    return encoded(".png", np.zeros((height, width), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def full(value: int) -> np.ndarray:
    return np.full((40, 40), value)


def soft_edges() -> np.ndarray:
    return cv2.GaussianBlur(picture(0)[1] * 255, (5, 5), 0)


def half_transparent(root: Path) -> None:
    rgba = np.dstack([picture(0)[0], np.full((40, 40), 100, np.uint8)])
    Image.fromarray(rgba).save(root / IMAGE, "PNG")


def animation(root: Path) -> None:
    frames = [Image.fromarray(picture(i)[0]) for i in range(2)]
    frames[0].save(root / IMAGE, "TIFF", save_all=True, append_images=frames[1:])


def stored_sideways(root: Path) -> None:
    Image.fromarray(picture(0, 20, 40)[0]).save(root / IMAGE, exif=exif(6))
    save(root / MASK, picture(0, 20, 40)[1] * 255)


def same_by_exif(root: Path) -> None:
    image = picture(0)[0]
    for name in ("a", "b"):
        (root / f"{name}/Images/{name}_1.jpg").unlink()
    save(root / "a/Images/a_1.png", image)
    Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(root / "b/Images/b_1.png", exif=exif(6))


def not_utf8(root: Path) -> None:
    (root / IMAGE).rename(os.fsdecode(os.fsencode(root) + b"/a/Images/\xff.jpg"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


CASES: dict[str, tuple[Change, str]] = {
    "mask missing": (lambda r: (r / MASK).unlink(), "a_1.jpg: missing mask: there is no a/GT/a_1.png"),
    "mask of another stem": (lambda r: (r / MASK).rename(r / "a/GT/a_one.png"), "missing mask"),
    "mask with soft edges as jpg": (
        lambda r: (save(r / "a/GT/a_1.jpg", soft_edges()), (r / MASK).unlink()),
        "a/GT/a_1.jpg: unexpected mask values",
    ),
    "mask of labels and an ignored border": (
        mask_of(np.where(full(0) + np.arange(40) < 3, 255, picture(0)[1])),
        "data.mask_values='{defect: [1], ignore: [255]}'",
    ),
    "mask of labels of three classes": (
        mask_of(full(0) + np.arange(40) // 10),
        "look like labels of 3 classes: python -m cpanet.data import",
    ),
    "mask drawn on the pixels as stored": (stored_sideways, "EXIF orientation 6"),
    "the same picture in another format and class": (
        lambda r: Image.open(r / IMAGE).save(r / "b/Images/b_1.png") or (r / "b/Images/b_1.jpg").unlink(),
        "duplicated image: is the same picture as a/Images/a_1.jpg, which is of another class",
    ),
    "the same picture turned by EXIF": (
        same_by_exif,
        "b/Images/b_1.png: duplicated image: is the same picture as a/Images/a_1.png",
    ),
    "no GT folder": (lambda r: shutil.rmtree(r / "a/GT"), "a/GT: missing folder"),
    "image of zero bytes": (put(IMAGE, b""), "a/Images/a_1.jpg: unreadable file: is empty (0 bytes)"),
    "mask of zero bytes": (put(MASK, b""), "a/GT/a_1.png: unreadable file: is empty (0 bytes)"),
    "image of one byte": (put(IMAGE, b"\xff"), "no JPEG, PNG, BMP or TIFF"),
    "text for an image": (put(IMAGE, b"hello" * 100), "no JPEG, PNG, BMP or TIFF"),
    "html for an image": (put(IMAGE, b"<!DOCTYPE html><html></html>"), "no JPEG, PNG, BMP or TIFF"),
    "zip for an image": (put(IMAGE, b"PK\x03\x04" + bytes(100)), "no JPEG, PNG, BMP or TIFF"),
    "svg for a mask": (put(MASK, b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no JPEG, PNG, BMP or TIFF"),
    "gif for an image": (as_mode("P", IMAGE, "GIF"), "no JPEG, PNG, BMP or TIFF"),
    "webp for an image": (put(IMAGE, encoded(".webp", picture(0)[0])), "no JPEG, PNG, BMP or TIFF"),
    "image cut in half": (cut(IMAGE, 0.5), "a/Images/a_1.jpg: unreadable file: is truncated"),
    "image cut to a tenth": (cut(IMAGE, 0.1), "unreadable file"),
    "image almost whole": (cut(IMAGE, 0.9), "unreadable file: is truncated"),
    "mask cut in half": (cut(MASK, 0.5), "a/GT/a_1.png: unreadable file: is truncated"),
    "mask cut in its header": (cut(MASK, 0.1), "unreadable file"),
    "mask damaged": (damage(MASK, 45), "a/GT/a_1.png: unreadable file"),
    "mask header damaged": (damage(MASK, 14), "unreadable file"),
    "image header damaged": (damage(IMAGE, 0), "no JPEG, PNG, BMP or TIFF"),
    "png without pixels": (put(IMAGE, png_header(40, 40)), "unreadable file"),
    "link to nowhere": (instead(lambda path: path.symlink_to("nowhere.jpg")), "link that leads nowhere"),
    "named pipe": (instead(os.mkfifo), "is not a regular file"),
    "folder with an image's name": (instead(Path.mkdir), "is not a regular file"),
    "16-bit mask of many values": (
        put(MASK, encoded(".png", picture(0)[0][..., 0].astype(np.uint16) * 257)),
        "a/GT/a_1.png: unexpected mask values: has more than 8 bits",
    ),
    "floating-point TIFF that is not finite": (
        lambda r: Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(r / IMAGE, "TIFF"),
        "holds values that are not finite",
    ),
    "YCbCr TIFF": (as_mode("LAB", IMAGE, "TIFF"), "is LAB; save it"),
    "half transparent": (half_transparent, "is partly transparent"),
    "several pictures in one TIFF": (animation, "holds 2 pictures"),
    "1×1 image": (put(IMAGE, large(1, 1)), "too small: is 1×1"),
    "7×40 image": (put(IMAGE, large(7, 40)), "too small: is 7×40"),
    "20000×20000 image": (put(IMAGE, png_header(20000, 20000)), "too large"),
    "20000×20000 mask": (put(MASK, png_header(20000, 20000)), "a/GT/a_1.png: too large"),
    "bomb": (put(IMAGE, png_header(65535, 65535)), "too large"),
    "12300×12200 image": (put(IMAGE, png_header(12300, 12200)), "too large: is 12300×12200"),
    "no width": (put(IMAGE, png_header(0, 40)), "a/Images/a_1.jpg"),
    "mask of another size": (put(MASK, large(39, 40)), "size mismatch: is 39×40, its image 40×40"),
    "mask transposed": (
        put(MASK, encoded(".png", np.eye(20, 40, dtype=np.uint8) * 255)),
        "size mismatch: is 40×20",
    ),
    "mask of zeros": (mask_of(full(0)), "a/GT/a_1.png: empty mask: has no defect pixel"),
    "mask of 255": (mask_of(full(255)), "full mask: has no background pixel"),
    "mask of ones": (mask_of(full(1)), "unexpected mask values: holds the grey values 1"),
    "mask of 0 and 128": (mask_of(picture(0)[1] * 128), "holds the grey values 0, 128"),
    "mask of class numbers": (
        mask_of(np.arange(1600).reshape(40, 40) % 7),
        "holds the grey values 0, 1, 2, 3, 4 …",
    ),
    "inverted 0 and 254": (mask_of(254 - picture(0)[1] * 254), "holds the grey values 0, 254"),
    "antialiased mask": (mask_of(soft_edges()), "data.mask_threshold=127"),
    "photograph for a mask": (mask_of(picture(0)[0][..., 0]), "unexpected mask values"),
    "colour mask": (as_mode("RGB", MASK, "PNG"), "is in colour; save it as grey"),
    "coloured palette mask": (
        lambda r: Image.fromarray(picture(0)[0]).convert("P", palette=Image.Palette.ADAPTIVE).save(r / MASK),
        "unexpected mask values",
    ),
    "jpeg named png": (put(MASK, encoded(".jpg", soft_edges())), "unexpected mask values"),
    "two images with one mask": (
        lambda r: save(r / "a/Images/a_1.png", picture(0)[0]),
        "duplicated name: a_1.jpg would have the same mask",
    ),
    "the same picture twice": (
        lambda r: (r / IMAGE).write_bytes((r / "a/Images/a_2.jpg").read_bytes()),
        "duplicated image: is the same picture as a/Images/a_1.jpg",
    ),
    "file name not UTF-8": (not_utf8, r"a/Images/\xff.jpg: file name: is not UTF-8"),
    "no image in a class": (lambda r: shutil.rmtree(r / "b/GT"), "b/GT: missing folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_rule_names_the_file_and_what_is_wrong(tmp_path, case):
    change, words = CASES[case]
    root = write_folder(tmp_path / "data")
    change(root)
    with pytest.raises(UserError) as error:
        load_dataset("folder", root, folds=3)
    message = str(error.value)
    assert words in message
    assert "problem" in message
    assert message.count("\n  ") <= 5  # the problem itself and what follows from it, not a flood


def test_all_problems_come_at_once_and_the_list_is_cut(tmp_path):
    root = write_folder(tmp_path, per_class=20)
    for number in range(1, 16):
        (root / f"a/GT/a_{number}.png").unlink()
        (root / f"b/Images/b_{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        load_dataset("folder", root)
    message = str(error.value)
    assert "30 problems" in message
    assert "a_15.jpg: missing mask" in message
    assert "… and 10 more" in message


def test_a_class_too_small_for_the_shot_is_named(tmp_path):
    root = write_folder(tmp_path, per_class=5)
    load_dataset("folder", root, min_images=5)
    with pytest.raises(
        UserError, match="a: class too small: has 5 usable images; 5-shot episodes need at least 6"
    ):
        load_dataset("folder", root, min_images=6)


def test_too_many_pixels_altogether_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("cpanet.data.folder.MAX_TOTAL_PIXELS", 9 * 1600 - 1)
    with pytest.raises(UserError, match="all images together have 14,400 pixels"):
        load_dataset("folder", write_folder(tmp_path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_end_in_a_data_set_or_in_one_message(tmp_path_factory, data):
    root = write_folder(tmp_path_factory.mktemp("fuzz"), ("a", "b"), per_class=2)
    name = data.draw(st.sampled_from([IMAGE, MASK]))
    whole = bytearray((root / name).read_bytes())
    kind = data.draw(st.sampled_from(["replace", "cut", "flip"]))
    if kind == "replace":
        whole = bytearray(data.draw(st.binary(max_size=200)))
    elif kind == "cut":
        del whole[data.draw(st.integers(0, len(whole))) :]
    else:
        for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
            whole[at] ^= data.draw(st.integers(1, 255))
    (root / name).write_bytes(bytes(whole))
    with contextlib.suppress(UserError):
        dataset = load_dataset("folder", root)
        assert dataset.images[0].shape[:2] == dataset.masks[0].shape


# --- python -m cpanet.data check ---------------------------------------------------------------------------


def test_check_prints_a_report_and_exits_0_or_2(root, capsys):
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "9 usable images" in out
    assert "No problems" in out
    (root / MASK).unlink()
    assert main(["check", str(root), "--shot", "3"]) == 2
    out = capsys.readouterr().out
    assert "missing mask" in out
    assert "class too small" in out


def test_check_takes_names_as_they_are(tmp_path, capsys):
    root = write_folder(tmp_path / "[red]", ("[bold]x", "b"))
    assert main(["check", str(root)]) == 0
    assert "[bold]x" in capsys.readouterr().out


def test_the_command_ends_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "cpanet.data", "check", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert ended.returncode == 2
    assert "does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_data_package_imports_no_jittor():
    code = "import sys, cpanet.data, cpanet.metrics; print('jittor' in sys.modules, 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert ended.stdout.split() == ["False", "False"]


def test_check_finds_a_picture_that_was_compressed_again_in_a_class_of_another_fold(root, capsys):
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8), (0, 0), 1.2
    )
    for name, quality in (("a", 95), ("b", 70)):
        Image.fromarray(image).save(root / f"{name}/Images/{name}_1.jpg", quality=quality)
        save(root / f"{name}/GT/{name}_1.png", picture(0, 80, 80)[1] * 255)
    assert len(load_dataset("folder", root)) == 9
    assert main(["check", str(root)]) == 2
    assert "leakage" in capsys.readouterr().out


def test_two_photographs_in_the_same_light_are_not_the_same_picture():
    rng = np.random.default_rng(0)
    light = np.repeat(np.linspace(60, 180, 80)[:, None], 80, axis=1)[..., None]
    noisy = [np.clip(light + rng.normal(0, 3, (80, 80, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    assert near_pairs(noisy) == []


def test_check_names_pictures_that_exif_turns(root, capsys):
    Image.fromarray(picture(0)[0]).save(root / IMAGE, exif=exif(6))
    assert main(["check", str(root)]) == 0
    assert f"turned by their EXIF orientation, as they are shown: {IMAGE}" in " ".join(
        capsys.readouterr().out.split()
    )


def test_check_takes_mask_values(root, capsys):
    labelled(root)
    assert main(["check", str(root)]) == 2
    assert main(["check", str(root), "--mask-values", "{defect: [1], ignore: [255]}"]) == 0
