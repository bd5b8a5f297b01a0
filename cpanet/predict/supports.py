"""The annotated pictures of ``support=DIR``: found by their names, read by the project's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpanet.data.check import MaskRule, Problem, binarise, meanings_of, printable, raise_problems, shorten
from cpanet.data.folder import IMAGES, MASK_ENDS, MASKS, Contents, Pair, list_folder, list_pairs
from cpanet.data.images import (
    IMAGE_SUFFIXES,
    Refused,
    ValueRange,
    decode_image,
    decode_mask,
    read_header,
    value_range_of,
)
from cpanet.errors import UserError

RULE = "Images/ and GT/ with the same names, or in one folder NAME.jpg with NAME.png or NAME_mask.png"


class Supports(NamedTuple):
    """K supports: images uint8 RGB (H, W, 3), masks uint8 (H, W) {0, 1, 255 = ignored}.

    ``category``: the name of their class, if any; ``value_range``: the values that become 0 and 255 in pictures of more
    than 8 bits, the queries too.
    """

    names: list[str]
    images: list[np.ndarray]
    masks: list[np.ndarray]
    category: str | None
    value_range: ValueRange = None


def find_supports(support: str | None) -> tuple[list[Pair], str | None]:
    """The pairs below ``support``, in natural order, and the class's name. No image is read.

    In the layout of a data set: ``Images/`` and ``GT/``, in the folder itself or in that of the one class it holds.
    Otherwise pairs in the folder: ``NAME.jpg`` belongs to ``NAME_mask.png`` (also ``-mask``, ``.mask``, ``_gt``), or to
    ``NAME.png`` where the picture itself is no PNG. Raises UserError where there are none, or a picture has no mask.
    """
    if not support:
        raise UserError(f"support = null: give the annotated pictures: support=DIR, with {RULE}.")
    root = Path(support)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"support={printable(support)} {what}. Give the folder of the annotated pictures.")
    classes = [name for name in list_folder(root) if (root / name / IMAGES).is_dir()]
    if (root / IMAGES).is_dir():
        return _in_layout(root.parent, root.name), root.name
    if len(classes) > 1:
        raise UserError(
            f"support={printable(support)} holds {len(classes)} classes ({shorten(classes)}), and one prediction marks "
            f"one of them. Give its folder: support={printable(str(root / classes[0]))}."
        )
    if classes:
        return _in_layout(root, classes[0]), classes[0]
    return _in_one_folder(root), None


def _in_layout(root: Path, name: str) -> list[Pair]:
    contents = Contents()
    pairs = list_pairs(root, 0, name, name, contents)
    raise_problems("support", root / name, contents.problems)
    if not pairs:
        raise UserError(
            f"support={printable(str(root / name))}: {IMAGES}/ holds no pictures with masks in {MASKS}/."
        )
    return pairs


def _in_one_folder(root: Path) -> list[Pair]:
    files = [name for name in list_folder(root) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    masks = _masks_by_stem(files)
    used = set(masks.values())
    images = [name for name in files if name not in used]
    stems = [Path(name).stem for name in images]
    problems = [
        Problem(printable(name), "missing mask", f"there is no {stem}.png or {stem}_mask.png")
        for name, stem in zip(images, stems)
        if stem not in masks
    ]
    problems += [
        Problem(printable(name), "duplicated name", "another picture would have the same mask")
        for name, stem in zip(images, stems)
        if stems.count(stem) > 1
    ]
    raise_problems("support", root, problems)
    if not images:
        raise UserError(f"support={printable(str(root))} holds no annotated pictures. Needed: {RULE}.")
    return [Pair(0, name, root / name, root / masks[stem]) for name, stem in zip(images, stems)]


def _masks_by_stem(files: list[str]) -> dict[str, str]:
    """The mask of every picture's stem. A name that says it is a mask wins over a PNG of the picture's own name."""
    stems = {name: Path(name).stem for name in files}
    pngs = [name for name in files if name.lower().endswith(".png")]
    others = {stems[name] for name in files if name not in pngs}
    masks = {stems[name]: name for name in pngs if stems[name] in others}
    for name in pngs:
        for end in MASK_ENDS:
            if stems[name].endswith(end) and stems[name][: -len(end)] in stems.values():
                masks[stems[name][: -len(end)]] = name
    return masks


def read_supports(
    support: str | None, mask_threshold: int | None = None, mask_values: Any = None
) -> Supports:
    """All supports, decoded, their masks by the rules of a data set.

    Raises UserError with every problem of every file at once.
    """
    files, category = find_supports(support)
    rule = MaskRule(mask_threshold, lenient=False, values=meanings_of(mask_values))
    found = Supports([], [], [], category, value_range_of(file.image for file in files))
    problems: list[Problem] = []
    for file in files:
        path = file.image
        try:
            header = read_header(path)
            image = decode_image(path.read_bytes(), found.value_range)
            path = file.mask
            if read_header(path).size != header.size:
                raise Refused(
                    "size mismatch", f"is not of its picture's size, {header.width}×{header.height}"
                )
            mask, _ = binarise(decode_mask(path.read_bytes()), rule)
        except Refused as refused:
            problems.append(Problem(printable(path.name), refused.rule, refused.detail))
            continue
        except OSError as error:
            detail = f"cannot be read ({error.strerror})"
            problems.append(Problem(printable(path.name), "unreadable file", detail))
            continue
        found.names.append(file.image.name)
        found.images.append(image)
        found.masks.append(mask)
    raise_problems("support", support or "", problems)
    return found
