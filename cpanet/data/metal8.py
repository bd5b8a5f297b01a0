"""Build metal8 from the two public downloads, by a list of the images it consists of.

The list (``metal8_sources.csv``: class, image, mask, source, original_image) holds file names only; the
pictures come from SD-saliency-900 and from the magnetic-tile set, each as a folder or as the .zip it came in.
Images are written as JPEG of quality 95, masks as PNG, defect where the original is above 127.

A .zip is never unpacked: the wanted pictures are read from it one by one, each with a limit.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import cv2

from cpanet.data.check import MaskRule, Problem, binarise, printable, raise_problems
from cpanet.data.folder import IMAGES, MASKS, is_picture, new_folder
from cpanet.data.images import Refused, decode_image, decode_mask, read_header_of
from cpanet.errors import UserError

SOURCES = Path(__file__).with_name("metal8_sources.csv")
COLUMNS = ("class", "image", "mask", "source", "original_image")
THRESHOLD = 127
JPEG_QUALITY = 95
MAX_MEMBER_BYTES = 64 * 2**20
NAME = r"[^./\\][^/\\]*"  # of a folder or a file, as a pattern


class SourceRow(NamedTuple):
    """One picture: where it goes below the output folder, and the end of its path in the download."""

    image: str
    mask: str
    source: str
    original: str


class Download:
    """The pictures of a folder or a .zip: their paths, and how to open one; ``verbs`` are for what is wrong with it."""

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        opening: Callable[[str], IO[bytes]],
        verbs: tuple[str, str] = ("has", "read"),
    ):
        self.name, self._opening, self._verbs = name, opening, verbs
        self._by_file: dict[str, list[PurePosixPath]] = {}
        for path in paths:
            if is_picture(path):
                self._by_file.setdefault(PurePosixPath(path).name, []).append(PurePosixPath(path))

    def read(self, path: str) -> bytes:
        """The content of a picture."""
        try:
            with self._opening(path) as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except Exception as error:  # damaged, encrypted, or a compression that Python does not know
            words = printable(str(getattr(error, "strerror", None) or error))[:80]
            raise Refused("unreadable file", f"cannot be {self._verbs[1]} ({words})") from None
        if len(data) > MAX_MEMBER_BYTES:
            raise Refused("too large", f"{self._verbs[0]} more than {MAX_MEMBER_BYTES >> 20} MiB")
        return data

    def image(self, original: str) -> str:
        """The one picture whose path ends like ``original``: its folder and name must agree at least."""
        wanted = PurePosixPath(original)
        found = [p for p in self._by_file.get(wanted.name, []) if p.parts[-2:-1] == wanted.parts[-2:-1]]
        longest = [p for p in found if p.parts[-len(wanted.parts) :] == wanted.parts] or found
        if len(longest) != 1:
            raise Refused(
                "not found" if not found else "ambiguous", f"{len(found)} files match in {self.name}"
            )
        return str(longest[0])

    def mask(self, image: str) -> str:
        """The mask of a picture: a .png of its name beside it, or in a ground-truth folder next door."""
        path = PurePosixPath(image)
        for found in self._by_file.get(f"{path.stem}.png", []):
            beside = found.parent == path.parent
            truth = found.parent.parent == path.parent.parent and "truth" in found.parent.name.lower()
            if (beside or truth) and found != path:
                return str(found)
        raise Refused("missing mask", f"there is no mask {path.stem}.png for it in {self.name}")


def open_download(path: Path) -> Download:
    """A folder or a .zip; links, paths that lead outside and bombs in a .zip are refused."""
    shown = printable(str(path))
    if path.is_dir():
        files = [
            (Path(folder) / file).relative_to(path).as_posix()
            for folder, _, names in os.walk(path)  # does not follow links
            for file in names
            if not (Path(folder) / file).is_symlink()
        ]
        return Download(shown, files, lambda name: (path / name).open("rb"))
    if not path.is_file():
        raise UserError(f"{shown} does not exist. Give the folder or the .zip of the download.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        raise UserError(
            f"{shown} is damaged, or no .zip. Give the .zip as downloaded, or unpack it and give the folder."
        ) from None
    for member in archive.infolist():
        pure = PurePosixPath(member.filename.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or ":" in member.filename.split("/")[0]:
            raise UserError(
                f"{shown} holds a path that leads outside: {printable(member.filename)}. Do not use it."
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{shown} holds a symbolic link: {printable(member.filename)}. Do not use it.")
    files = [member.filename for member in archive.infolist() if not member.is_dir()]
    return Download(shown, files, archive.open, ("unpacks to", "unpacked"))


def read_sources(path: Path = SOURCES) -> list[SourceRow]:
    """The rows of a SOURCES list, checked: every output path is class/Images/file or class/GT/file."""
    shown = printable(str(path))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown} cannot be read as CSV: {error}") from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UserError(f"{shown} is no list of sources; its columns must be {', '.join(COLUMNS)}.")
    for number, row in enumerate(rows, 2):
        for column, folder, suffix in (("image", IMAGES, ".jpg"), ("mask", MASKS, ".png")):
            found = re.fullmatch(rf"({NAME})/{folder}/{NAME}\{suffix}", row[column] or "")
            if found is None or found[1] != row["class"]:
                raise UserError(
                    f"{shown}, line {number}: {column} must be {row['class']}/{folder}/NAME{suffix}, "
                    f"not {printable(str(row[column]))}."
                )
    return [SourceRow(r["image"], r["mask"], r["source"] or "", r["original_image"] or "") for r in rows]


def convert(image: bytes, mask: bytes) -> tuple[bytes, bytes]:
    """Re-encoded image and mask; ``Refused`` where they cannot be decoded or do not fit together."""
    for data in (image, mask):
        read_header_of(io.BytesIO(data))
    rgb, grey = decode_image(image), decode_mask(mask)
    if rgb.shape[:2] != grey.shape:
        raise Refused("size mismatch", f"mask is {grey.shape[::-1]}, its image {rgb.shape[1::-1]}")
    defect, _ = binarise(grey, MaskRule(THRESHOLD, lenient=True))
    jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return jpeg, cv2.imencode(".png", defect * 255)[1].tobytes()


def build_metal8(sd900: Path, magnetic_tile: Path, out: Path, sources: Path = SOURCES) -> int:
    """Write metal8 to ``out`` (which must not exist yet); returns the number of images.

    All problems are raised together as one ``UserError``, and nothing is left in ``out`` then.
    """
    rows = read_sources(sources)
    downloads = {"SD-saliency-900": open_download(sd900), "Magnetic-tile": open_download(magnetic_tile)}
    with new_folder(out) as work:
        problems = [p for row in rows for p in _write_row(row, downloads, work)]
        raise_problems("metal8", f"{downloads['SD-saliency-900'].name} and {magnetic_tile}", problems)
    return len(rows)


def _write_row(row: SourceRow, downloads: Mapping[str, Download], work: Path) -> list[Problem]:
    try:
        download = next((d for name, d in downloads.items() if row.source.startswith(name)), None)
        if download is None:
            raise Refused("unknown source", f"{printable(row.source)}: known are {', '.join(downloads)}")
        original = download.image(row.original)
        image, mask = convert(download.read(original), download.read(download.mask(original)))
    except Refused as refused:
        return [Problem(printable(row.original), refused.rule, refused.detail)]
    for name, data in ((row.image, image), (row.mask, mask)):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)
    return []
