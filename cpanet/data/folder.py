"""The reader: ``<class>/Images/*`` with ``<class>/GT/<same stem>.png``, for every data set in this layout.

Anything else beside them (``Nd/``, a read-me, thumbnails) is left alone. Problems are collected, never
raised one by one, so that a user mends a data set once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpanet.data.check import MaskRule, Problem, binarise, printable, shorten
from cpanet.data.images import (
    IMAGE_SUFFIXES,
    Header,
    Refused,
    ValueRange,
    decode_mask,
    decode_pixels,
    join_ranges,
    range_of,
    read_header,
    to_rgb,
)
from cpanet.errors import UserError
from cpanet.files import folder_beside

IMAGES, MASKS = "Images", "GT"
MASK_ENDS = ("_mask", "-mask", ".mask", "_gt", "_GT", "-gt")  # of a mask's name without its suffix
MAX_TOTAL_PIXELS = 1_500_000_000  # 4 bytes each once decoded: 6 GB


class Pair(NamedTuple):
    """An image and its mask; ``name`` is the image's path below the root, in the canonical class name."""

    class_index: int
    name: str
    image: Path
    mask: Path


@dataclass
class Contents:
    """Content of a folder: decoded pairs in order, problems, and notes on what was accepted."""

    names: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""
    value_range: ValueRange = None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` when the block is left; where the block fails nothing is left of it.

    Raises UserError where ``target`` is there already, unless as an empty folder, or cannot be written.
    """
    shown = printable(str(target))
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UserError(f"{shown} exists already. Give a folder that does not, or remove it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(target) as beside:
            work = beside / "new"
            work.mkdir()
            yield work
            work.rename(target)  # replaces an empty folder
    except OSError as error:
        raise UserError(f"{shown} cannot be written: {error.strerror or error}.") from None


def natural_key(name: str) -> tuple:
    """Sorts img_2 before img_10, whatever the order of the file system."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p), name


def list_folder(path: Path) -> list[str]:
    """Names in a folder in natural order, hidden ones left out; [] where it is no folder."""
    try:
        names = os.listdir(path)
    except OSError:
        return []
    return sorted((n for n in names if not n.startswith(".")), key=natural_key)


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by its suffix."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_mask_name(name: str, stems: Collection[str]) -> bool:
    """Whether a file is the mask of one beside it, by its name: ``x_mask.png`` where there is an ``x``."""
    stem = Path(name).stem
    return any(stem.endswith(end) and stem[: -len(end)] in stems for end in MASK_ENDS)


def list_pictures(folder: Path) -> list[str]:
    """Names of the pictures in a folder, in natural order: no hidden files, no ``Thumbs.db``, no masks beside them."""
    names = [name for name in list_folder(folder) if is_picture(name)]
    stems = {Path(name).stem for name in names}
    return [name for name in names if not is_mask_name(name, stems)]


def masks_by_stem(files: Sequence[str], stems: Collection[str]) -> dict[str, str]:
    """The mask of every picture: ``x.png`` before ``x.bmp`` or another format before ``x_mask.png`` and the like."""
    found: dict[str, str] = {}
    pictures = [f for f in files if is_picture(f)]
    for file in sorted(pictures, key=lambda f: Path(f).suffix.lower() != ".png"):
        found.setdefault(Path(file).stem, file)
    for end in MASK_ENDS:
        for file in pictures:
            stem = Path(file).stem
            if stem.endswith(end) and stem not in stems and stem[: -len(end)] in stems:
                found.setdefault(stem[: -len(end)], file)
    return found


def find_classes(root: Path) -> list[str]:
    """Sub-folders that hold an ``Images`` folder, in natural order."""
    return [name for name in list_folder(root) if os.path.isdir(root / name / IMAGES)]


def list_pairs(root: Path, class_index: int, name: str, folder: str, contents: Contents) -> list[Pair]:
    """The images of one class that have a mask; what has not is noted in ``contents``."""

    def refuse(file: str, rule: str, detail: str) -> None:
        contents.problems.append(Problem(file, rule, detail))

    images_dir, masks_dir = root / folder / IMAGES, root / folder / MASKS
    for directory in (images_dir, masks_dir):
        if not os.path.isdir(directory):  # False, too, where it may not be looked into
            refuse(f"{printable(folder)}/{directory.name}", "missing folder", "is not there")
    files = list_folder(images_dir)
    images = [f for f in files if is_picture(f)]
    masks = masks_by_stem(list_folder(masks_dir), {Path(f).stem for f in images})

    pairs: list[Pair] = []
    stems: dict[str, str] = {}
    for file in images:
        path, stem = f"{name}/{IMAGES}/{file}", Path(file).stem
        shown = f"{name}/{IMAGES}/{printable(file)}"
        if path.encode(errors="ignore").decode() != path:
            refuse(shown, "file name", "is not UTF-8; rename it")
        elif stem in stems:
            refuse(shown, "duplicated name", f"{printable(stems[stem])} would have the same mask; keep one")
        elif stem in masks:
            stems[stem] = file
            pairs.append(Pair(class_index, path, images_dir / file, masks_dir / masks[stem]))
        elif masks_dir.is_dir():
            near = [m for s, m in masks.items() if s.casefold() == stem.casefold()]
            capitals = f"; {printable(near[0])} differs in capitals: rename it" if near else ""
            refuse(shown, "missing mask", f"there is no {name}/{MASKS}/{printable(stem)}.png{capitals}")
    unused = [masks[s] for s in masks if s not in stems and images_dir.is_dir()]
    other = [masks[s] for s in stems if masks[s] not in (f"{s}.png", f"{s}.PNG")]
    for what, below, names in (
        ("ignored, no image by its name", f"{folder}/{IMAGES}", [f for f in files if not is_picture(f)]),
        ("masks of another name than NAME.png", f"{name}/{MASKS}", other),
        ("ignored, masks without an image", f"{name}/{MASKS}", unused),
    ):
        if names:
            contents.notes.append(f"{what}: {shorten([f'{below}/{file}' for file in names])}")
    return pairs


def _problem(pair: Pair, path: Path, rule: str, detail: str) -> Problem:
    return Problem(f"{pair.name.split('/')[0]}/{path.parent.name}/{printable(path.name)}", rule, detail)


def _read_headers(pair: Pair) -> tuple[Header | None, list[Problem]]:
    """The image's header, where it can be read, and what is wrong with that or with the mask's."""
    headers: list[Header | None] = []
    problems = []
    for path in (pair.image, pair.mask):
        try:
            headers.append(read_header(path))
        except Refused as refused:
            headers.append(None)
            problems.append(_problem(pair, path, refused.rule, refused.detail))
    image, mask = headers
    if image is not None and mask is not None and image.size != mask.size:
        detail = f"is {mask.width}×{mask.height}, its image {image.width}×{image.height}"
        if image.orientation != mask.orientation and image.size == mask.size[::-1]:
            detail += (
                f" once turned by its EXIF orientation {image.orientation}, as it is shown; save the image turned and "
                "without that tag, or draw the mask on what is shown"
            )
        problems.append(_problem(pair, pair.mask, "size mismatch", detail))
    return image, problems


class _Decoded(NamedTuple):
    pixels: np.ndarray
    mask: np.ndarray
    remark: str
    digest: bytes  # of both files


def _decode(pair: Pair, rule: MaskRule) -> _Decoded | list[Problem]:
    parts: list[Any] = []
    digest, problems = b"", []
    for path in (pair.image, pair.mask):
        try:
            data = path.read_bytes()
            digest += hashlib.sha256(data).digest()
            if path == pair.image:
                parts.append(decode_pixels(data))
            else:
                parts.extend(binarise(decode_mask(data), rule))
        except Refused as refused:
            problems.append(_problem(pair, path, refused.rule, refused.detail))
        except OSError as error:
            problems.append(_problem(pair, path, "unreadable file", f"cannot be read ({error.strerror})"))
    if problems:
        return problems
    pixels, mask, remark = parts
    return _Decoded(pixels, mask, remark, digest)


def read_folder(root: Path, folders: Mapping[str, str], rule: MaskRule) -> Contents:
    """Read every class of ``folders``, which gives the name of each one's folder.

    Two files that show the same pixels are a problem, with a lenient ``rule`` a note.
    """
    contents = Contents()
    pairs: list[Pair] = []
    for index, (name, folder) in enumerate(folders.items()):
        if (root / folder).is_dir():
            pairs += list_pairs(root, index, name, folder, contents)
        else:
            contents.problems.append(Problem(printable(folder), "missing class", "the folder is not there"))

    # Sizes first: what is too large must not be decoded, one by one or all together.
    headers = [_read_headers(pair) for pair in pairs]
    contents.problems += [problem for _, problems in headers for problem in problems]
    total = sum(header.width * header.height for header, _ in headers if header)
    if total > MAX_TOTAL_PIXELS:
        detail = (
            f"all images together have {total:,} pixels; the limit is {MAX_TOTAL_PIXELS:,}: make them smaller"
        )
        contents.problems.append(Problem(str(root), "too large", detail))
        return contents
    turned = [pair.name for pair, (header, _) in zip(pairs, headers) if header and header.orientation != 1]
    if turned:
        contents.notes.append(f"turned by their EXIF orientation, as they are shown: {shorten(turned)}")

    sound = [pair for pair, (_, problems) in zip(pairs, headers) if not problems]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        decoded = list(pool.map(lambda pair: _decode(pair, rule), sound))
    ranges = [range_of(item.pixels) for item in decoded if isinstance(item, _Decoded)]
    contents.value_range = join_ranges(ranges)
    remarks: Counter[str] = Counter()
    seen: dict[bytes, str] = {}
    digest = hashlib.sha256()
    for pair, item in zip(sound, decoded):
        if not isinstance(item, _Decoded):
            contents.problems += item
            continue
        image = to_rgb(item.pixels, contents.value_range)
        _compare(pair, image, seen, rule.lenient, contents)
        remarks[item.remark] += bool(item.remark)
        digest.update(pair.name.encode() + b"\0" + item.digest)
        contents.names.append(pair.name)
        contents.images.append(image)
        contents.masks.append(item.mask)
        contents.labels.append(pair.class_index)
    contents.notes += [f"{remark}: {number}" for remark, number in remarks.items() if number]
    if contents.value_range is not None:
        low, high = contents.value_range
        deep = sum(r is not None for r in ranges)
        contents.notes.append(f"pictures with more than 8 bits: {deep} ({low:g} to {high:g} become 0 to 255)")
        digest.update(f"range {low!r} {high!r}".encode())
    contents.fingerprint = digest.hexdigest()
    return contents


def _compare(
    pair: Pair, image: np.ndarray, seen: dict[bytes, str], lenient: bool, contents: Contents
) -> None:
    """Note or refuse a picture whose pixels have been met already, whatever the format of its file."""
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    first = seen.setdefault(pixels, pair.name)
    if first == pair.name:
        return
    detail = f"is the same picture as {printable(first)}"
    if first.split("/")[0] != pair.name.split("/")[0]:
        detail += ", which is of another class: what is tested would be trained on"
    if lenient:
        contents.notes.append(f"{printable(pair.name)} {detail}")
    else:
        contents.problems.append(_problem(pair, pair.image, "duplicated image", f"{detail}; keep one"))
