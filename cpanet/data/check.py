"""Checks of a data set: the rules for masks, pictures that are nearly the same, one message for all problems."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from pydantic import ValidationError

from cpanet.data.images import Refused
from cpanet.data_section import Meanings
from cpanet.errors import UserError

SHOWN = 20  # problems in one message


class Problem(NamedTuple):
    """One file or class and the rule that it breaks."""

    file: str
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.rule}: {self.detail}"


def printable(name: str) -> str:
    """A file name fit for a terminal: control characters and bytes that are no UTF-8 are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(names: Sequence[str], limit: int = 4) -> str:
    """The first few of some names, and how many more."""
    more = len(names) - limit
    return ", ".join(printable(n) for n in names[:limit]) + (f" and {more} more" if more > 0 else "")


BACKGROUND, DEFECT, IGNORE = 0, 1, 255  # values of a mask once it is read
FEW_VALUES = 8  # as many are labels rather than soft edges


def meanings_of(values: Any) -> Meanings | None:
    """``{"defect": [1], "ignore": [255]}`` as :class:`Meanings`; what is that already, or None, is handed back.

    Raises UserError for what is no such mapping, and for a value that would mean two things.
    """
    if values is None:
        return None
    if not isinstance(values, Meanings):
        given = values.items() if isinstance(values, Mapping) else ()
        lists = {name: list(v) if isinstance(v, (list, tuple)) else [v] for name, v in given}
        if 0 in [*lists.get("defect", ()), *lists.get("ignore", ())]:
            lists.setdefault("background", [])
        try:
            values = Meanings.model_validate(lists)
        except ValidationError as error:
            unknown = ("extra_forbidden", "invalid_key")
            problem = min(error.errors(), key=lambda problem: problem["type"] not in unknown)
            name, kind = str(problem["loc"][0]), problem["type"]
            what = f": {name} = {lists.get(name)}"
            if kind in unknown:
                what = f" has an unknown part {name!r}"
            elif kind in ("missing", "too_short"):
                what = " names no value of the defect"
            form = "Give lists of whole numbers from 0 to 255, such as {defect: [1], ignore: [255]}"
            raise UserError(f"mask_values{what}. {form}.") from None
    named = Counter(values.defect + values.ignore + values.background)
    twice = [value for value, number in named.items() if number > 1]
    if twice:
        raise UserError(f"mask_values gives {twice[0]} two meanings. Name every value once.")
    return values


class MaskRule(NamedTuple):
    """Which values of a mask's file are defect.

    ``values`` given: as they say. ``threshold`` given: grey > threshold is defect. Otherwise 255 is, and the rest must
    be 0, unless ``lenient``: then the rest is background, whatever it is, as in the released code.
    """

    threshold: int | None = None
    lenient: bool = False
    values: Meanings | None = None


def binarise(grey: np.ndarray, rule: MaskRule) -> tuple[np.ndarray, str]:
    """Mask uint8 {0, 1, 255 = ignored} of a mask file's values, and a remark where they were read in an unusual way.

    ``Refused`` for unexpected values, for a mask without a defect pixel and, unless lenient, for one without
    a background pixel. Nothing is ignored unless ``rule.values`` says so.
    """
    remark = ""
    if rule.values is not None:
        mask = _by_values(grey, rule.values, rule.lenient)
        several = "one of " if len(rule.values.defect) > 1 else ""
        meaning = several + ", ".join(map(str, rule.values.defect))
    elif rule.threshold is not None:
        mask = (grey > rule.threshold).astype(np.uint8)
        meaning = f"above {rule.threshold}"
    else:
        values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        defect, meaning = 255, "255"
        if set(values) == {0, 1}:
            defect, remark = 1, "masks of 0 and 1 (read as 0 and 255)"
        elif not set(values) <= {0, 255}:
            if not rule.lenient:
                raise Refused("unexpected mask values", _explain_values(values))
            remark = "masks with grey values between 0 and 255 (only 255 counts as defect)"
        mask = (grey == defect).astype(np.uint8)
    if not np.any(mask == DEFECT):
        raise Refused("empty mask", f"has no defect pixel (none is {meaning})")
    if not np.any(mask == BACKGROUND):
        if not rule.lenient:
            raise Refused("full mask", f"has no background pixel (all are {meaning}): inverted or blank?")
        remark = remark or "masks that cover the whole image"
    return mask, remark


def _by_values(grey: np.ndarray, values: Meanings, lenient: bool) -> np.ndarray:
    unnamed = 2
    meaning = np.full(256, BACKGROUND if lenient else unnamed, np.uint8)
    for number, listed in ((BACKGROUND, values.background), (DEFECT, values.defect), (IGNORE, values.ignore)):
        meaning[listed] = number
    mask = meaning[grey]
    if np.any(mask == unnamed):
        few = _few(np.unique(grey[mask == unnamed]))
        raise Refused("unexpected mask values", f"holds {few}, of which data.mask_values says nothing")
    return mask


def _few(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:5])) + (" …" if len(values) > 5 else "")


def _explain_values(values: np.ndarray) -> str:
    few = _few(values)
    between = [int(v) for v in values if v not in (0, 255)]
    labels = len(values) <= FEW_VALUES and 0 in values
    if labels and max(between) <= 32 and len(between) == 1:
        ignored = ", ignore: [255]" if 255 in values else ""
        return (
            f"holds the values {few}, which are labels, not grey levels; say what they mean, such as "
            f"data.mask_values='{{defect: {between}{ignored}}}'"
        )
    if labels and max(between) <= 32:
        return (
            f"holds the grey values {few}, which look like labels of {len(between)} classes: python -m cpanet.data "
            f"import SOURCE TARGET makes a folder of each; for one class of all: data.mask_values='{{defect: {between}}}'"
        )
    if labels and 255 in values and len(values) == 3:
        return (
            f"holds the grey values {few}; say whether {between[0]} is to be ignored, "
            f"data.mask_values='{{defect: [255], ignore: {between}}}', or defect too: data.mask_threshold={between[0] - 1}"
        )
    if 0 in values and 255 in values:
        return (
            f"holds {len(values)} grey values; defect is 255 and the rest 0, so soft edges (antialiasing, lossy "
            "saving) belong to neither. data.mask_threshold=127 takes everything above 127 as defect, the rest as none"
        )
    return (
        f"holds the grey values {few}; defect must be 255 and the rest 0, or give data.mask_threshold "
        "(grey above it is defect) or data.mask_values, such as '{defect: [1], ignore: [255]}'"
    )


def raise_problems(name: str, root: object, problems: Sequence[Problem]) -> None:
    """One ``UserError`` that lists every problem; nothing where there is none."""
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  … and {len(problems) - SHOWN} more")
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    first = f"The data set {name} in {printable(str(root))} has {count}:"
    last = "Put these right or leave the files out; python -m cpanet.data check FOLDER lists them all."
    raise UserError("\n".join([first, *lines, last]))


# Pictures that are the same but for their compression are found by coarse averages and confirmed pixel by pixel.
SIDE = 16  # of the coarse picture
COARSE = 3.0  # grey levels that no coarse pixel may differ by; compression keeps averages
# Of the fine structure; 0 for two photographs of the same plate, above 0.8 for a JPEG of quality 50.
CORRELATION = 0.7
FINE_SIGMA = 4.0  # pixels: illumination that all pictures share must not count


def near_pairs(images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Indices (first, second) of pictures of one size, uint8 RGB (H, W, 3), that show the same but are not equal.

    Each picture stands as ``second`` once at most. Turned, mirrored or scaled copies are not found.
    """
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    small = (
        cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for grey in greys
    )
    coarse = np.array(list(small))
    found = []
    for second in range(1, len(greys)):
        close = np.abs(coarse[:second] - coarse[second]).max(axis=(1, 2)) <= COARSE
        for first in np.flatnonzero(close):
            if _same(images[first], images[second], greys[first], greys[second]):
                found.append((int(first), second))
                break
    return found


def _same(first: np.ndarray, second: np.ndarray, grey: np.ndarray, other: np.ndarray) -> bool:
    if first.shape != second.shape or np.array_equal(first, second):
        return False
    both = (values.astype(np.float32) for values in (grey, other))
    a, b = (values - cv2.GaussianBlur(values, (0, 0), FINE_SIGMA) for values in both)
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return size > 0 and float((a * b).sum()) / size >= CORRELATION
