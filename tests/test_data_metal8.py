"""Building metal8 from downloads: small fake ones here; the list against the real set where it is."""

from __future__ import annotations

import csv
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpanet.data import metal8
from cpanet.data.__main__ import main
from cpanet.data.metal8 import build_metal8, read_sources
from cpanet.errors import UserError
from tests.datasets import encoded, picture
from tests.shared import shared

SD, MT = "SD-saliency-900 (somewhere)", "Magnetic-tile-defect-datasets (somewhere)"
ROWS = [
    ("Steel_In", "Steel_In_1", SD, "SD-saliency-900/Source Images/In_7.bmp"),
    ("Steel_In", "Steel_In_2", SD, "SD-saliency-900/Source Images/In_9.bmp"),
    ("MT_Break", "MT_Break_1", MT, "MT_Break/Imgs/exp1.jpg"),
]


def grey_picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As the downloads are: three equal channels, which JPEG keeps well."""
    image, mask = picture(seed)
    return np.repeat(image[..., :1], 3, axis=2), mask


def soft(mask: np.ndarray) -> np.ndarray:
    """A mask as the downloads have them: above and below 127, not only 0 and 255."""
    return np.where(mask == 1, 200, 100).astype(np.uint8)


def sd900() -> dict[str, bytes]:
    files = {}
    for seed, name in enumerate(("In_7", "In_9", "Pa_1")):
        image, mask = grey_picture(seed)
        files[f"SD-saliency-900/Source Images/{name}.bmp"] = encoded(".bmp", image)
        files[f"SD-saliency-900/Ground truth/{name}.png"] = encoded(".png", soft(mask))
    return files


def magnetic() -> dict[str, bytes]:
    image, mask = picture(5, 60, 40)
    files = {"exp1.jpg": encoded(".jpg", image[..., 0]), "exp1.png": encoded(".png", soft(mask))}
    return {f"master/{c}/Imgs/{name}": data for c in ("MT_Break", "MT_Free") for name, data in files.items()}


def write_csv(path: Path, rows=ROWS, header=metal8.COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows((c, f"{c}/Images/{n}.jpg", f"{c}/GT/{n}.png", s, o) for c, n, s, o in rows)
    return path


def as_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def sources(tmp_path) -> Path:
    return write_csv(tmp_path / "sources.csv")


@pytest.fixture
def tiles(tmp_path) -> Path:
    return as_folder(tmp_path / "mt", magnetic())


def test_it_is_built_alike_from_folders_and_from_zips(tmp_path, sources, capsys):
    files = []
    for pack in (as_folder, as_zip):
        out = tmp_path / f"out_{pack.__name__}"
        command = ["build", "metal8", "--sd900", str(pack(tmp_path / f"sd_{pack.__name__}", sd900()))]
        command += ["--magnetic-tile", str(pack(tmp_path / f"mt_{pack.__name__}", magnetic()))]
        assert main([*command, "--sources", str(sources), str(out)]) == 0
        assert "3 images written" in capsys.readouterr().out
        files.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")})
    assert files[0] == files[1]
    assert len(files[0]) == 6
    for seed, name in ((0, "Steel_In/{}/Steel_In_1.{}"), (1, "Steel_In/{}/Steel_In_2.{}")):
        image, mask = grey_picture(seed)
        assert np.array_equal(np.array(Image.open(out / name.format("GT", "png"))), mask * 255)
        with Image.open(out / name.format("Images", "jpg")) as jpeg:
            assert jpeg.format == "JPEG"
            assert np.abs(np.array(jpeg)[..., 1].astype(int) - image[..., 1]).mean() < 12
    assert Image.open(out / "MT_Break/Images/MT_Break_1.jpg").size == (40, 60)
    assert sorted(p.name for p in out.iterdir()) == ["MT_Break", "Steel_In"]


def test_everything_missing_is_named_at_once_and_nothing_is_left(tmp_path, tiles):
    rows = [*ROWS, ("Steel_Pa", "Steel_Pa_1", SD, "SD-saliency-900/Source Images/Pa_99.bmp")]
    files = sd900()
    del files["SD-saliency-900/Ground truth/In_9.png"]
    files["SD-saliency-900/Source Images/In_7.bmp"] = b"BM"
    sources = write_csv(tmp_path / "s.csv", rows)
    with pytest.raises(UserError) as error:
        build_metal8(as_folder(tmp_path / "sd", files), tiles, tmp_path / "out", sources)
    message = str(error.value)
    assert "3 problems" in message
    assert "Pa_99.bmp: not found" in message
    assert "In_9.bmp: missing mask" in message
    assert "In_7.bmp: unreadable file" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mt", "s.csv", "sd"]


def evil_link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("SD-saliency-900/link.png")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.writestr("../evil.png", b"x"), "leads outside: ../evil.png"),
        (lambda a: a.writestr("a/../../evil.png", b"x"), "leads outside"),
        (lambda a: a.writestr("/etc/evil.png", b"x"), "leads outside"),
        (lambda a: a.writestr("..\\evil.png", b"x"), "leads outside"),
        (lambda a: a.writestr("C:/evil.png", b"x"), "leads outside"),
        (evil_link, "symbolic link: SD-saliency-900/link.png"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(tmp_path, sources, tiles, change, words):
    path = as_zip(tmp_path / "sd.zip", sd900())
    with zipfile.ZipFile(path, "a") as archive:
        change(archive)
    with pytest.raises(UserError) as error:
        build_metal8(path, tiles, tmp_path / "out", sources)
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused_without_unpacking_it(tmp_path, sources, tiles, monkeypatch):
    monkeypatch.setattr(metal8, "MAX_MEMBER_BYTES", 2**20)
    files = {**sd900(), "SD-saliency-900/Source Images/In_7.bmp": b"BM" + bytes(3 * 2**20)}
    with pytest.raises(UserError, match=r"In_7\.bmp: too large: unpacks to more than 1 MiB"):
        build_metal8(as_zip(tmp_path / "sd.zip", files), tiles, tmp_path / "out", sources)


def test_a_damaged_member_is_named(tmp_path, sources, tiles):
    path = as_zip(tmp_path / "sd.zip", sd900())
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"In_7\.bmp: unreadable file: cannot be unpacked"):
        build_metal8(path, tiles, tmp_path / "out", sources)


def test_wrong_inputs_are_explained(tmp_path, sources):
    folder = as_folder(tmp_path / "sd", sd900())
    (tmp_path / "text.zip").write_text("hello")
    for path, words in ((tmp_path / "no", "does not exist"), (tmp_path / "text.zip", "no .zip")):
        with pytest.raises(UserError, match=words):
            build_metal8(folder, path, tmp_path / "out", sources)
    with pytest.raises(UserError, match="exists already"):
        build_metal8(folder, folder, folder, sources)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("../Images/x.jpg", "a/GT/x.png"),
        ("a/Images/../x.jpg", "a/GT/x.png"),
        ("/a/Images/x.jpg", "a/GT/x.png"),
        ("a/Images/x.jpg", "b/GT/x.png"),
        ("a/Images/.x.jpg", "a/GT/x.png"),
        ("a/Images/x.exe", "a/GT/x.png"),
        ("", "a/GT/x.png"),
    ],
)
def test_a_list_that_writes_elsewhere_is_refused(tmp_path, image, mask):
    path = tmp_path / "s.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([metal8.COLUMNS, ("a", image, mask, SD, "x.bmp")])
    with pytest.raises(UserError, match="line 2"):
        read_sources(path)


def test_a_list_with_other_columns_is_refused(tmp_path):
    with pytest.raises(UserError, match="columns must be"):
        read_sources(write_csv(tmp_path / "s.csv", header=("a", "b", "c", "d", "e")))
    with pytest.raises(UserError, match="cannot be read"):
        read_sources(tmp_path / "nowhere.csv")


def test_the_list_that_is_installed_names_382_images():
    rows = read_sources()
    assert len(rows) == len({r.image for r in rows}) == len({(r.source, r.original) for r in rows}) == 382


def test_the_list_that_is_installed_names_the_files_of_metal8():
    root = shared("data/metal8")
    present = {p.relative_to(root).as_posix() for p in root.glob("*/*/*")}
    assert present == {name for row in read_sources() for name in (row.image, row.mask)}
