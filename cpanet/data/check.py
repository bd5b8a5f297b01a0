"""Checks of a data set: the rules for masks, and one message for all problems at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cpanet.data.images import Refused
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


@dataclass(frozen=True)
class MaskValues:
    """Meaning of each value of a mask's file; values that are named nowhere are refused."""

    defect: tuple[int, ...]
    ignore: tuple[int, ...] = ()
    background: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, values: Any) -> MaskValues | None:
        """``{"defect": [1], "ignore": [255]}``, as a mapping or an object with these names; None of None.

        Raises UserError for what is no such mapping, and for a value that would mean two things.
        """
        if values is None or isinstance(values, MaskValues):
            return values
        if not isinstance(values, Mapping):
            values = {name: getattr(values, name, ()) for name in cls.__dataclass_fields__}
        form = "Give lists of whole numbers from 0 to 255, such as {defect: [1], ignore: [255]}"
        parts: dict[str, tuple[int, ...]] = {}
        for name, listed in values.items():
            if name not in cls.__dataclass_fields__:
                raise UserError(f"mask_values has an unknown part {name!r}. {form}.")
            if isinstance(listed, (str, bytes)) or not isinstance(listed, Iterable):
                listed = (listed,)
            parts[name] = tuple(listed)
            if not all(type(v) is int and 0 <= v <= 255 for v in parts[name]):
                raise UserError(f"mask_values: {name} = {list(parts[name])}. {form}.")
        if not parts.get("defect"):
            raise UserError(f"mask_values names no value of the defect. {form}.")
        rule = cls(**parts)
        if "background" not in parts and 0 in rule.defect + rule.ignore:
            rule = replace(rule, background=())
        twice = [
            v for v, number in Counter(rule.defect + rule.ignore + rule.background).items() if number > 1
        ]
        if twice:
            raise UserError(f"mask_values gives {twice[0]} two meanings. Name every value once.")
        return rule


class MaskRule(NamedTuple):
    """Which values of a mask's file are defect.

    ``values`` given: as they say. ``threshold`` given: grey > threshold is defect. Otherwise 255 is, and the rest must
    be 0, unless ``lenient``: then the rest is background, whatever it is, as in the released code.
    """

    threshold: int | None = None
    lenient: bool = False
    values: MaskValues | None = None


def binarise(grey: np.ndarray, rule: MaskRule) -> tuple[np.ndarray, str]:
    """Mask uint8 {0, 1, 255 = ignored} of a mask file's values, and a remark where they were read in an unusual way.

    ``Refused`` for unexpected values, for a mask without a defect pixel and, unless lenient, for one without
    a background pixel. Nothing is ignored unless ``rule.values`` says so.
    """
    remark = ""
    if rule.values is not None:
        mask = _by_values(grey, rule.values, rule.lenient)
        meaning = (
            "one of " + ", ".join(map(str, rule.values.defect))
            if len(rule.values.defect) > 1
            else str(rule.values.defect[0])
        )
    elif rule.threshold is not None:
        mask = (grey > rule.threshold).astype(np.uint8)
        meaning = f"above {rule.threshold}"
    else:
        counts = np.bincount(grey.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        defect = grey == 255
        meaning = "255"
        if set(values) == {0, 1}:
            defect, remark = grey == 1, "masks of 0 and 1 (read as 0 and 255)"
        elif not set(values) <= {0, 255}:
            if not rule.lenient:
                raise Refused("unexpected mask values", _explain_values(values))
            remark = "masks with grey values between 0 and 255 (only 255 counts as defect)"
        mask = defect.astype(np.uint8)
    if not np.any(mask == DEFECT):
        raise Refused("empty mask", f"has no defect pixel (none is {meaning})")
    if not np.any(mask == BACKGROUND):
        if not rule.lenient:
            raise Refused("full mask", f"has no background pixel (all are {meaning}): inverted or blank?")
        remark = remark or "masks that cover the whole image"
    return mask, remark


def _by_values(grey: np.ndarray, values: MaskValues, lenient: bool) -> np.ndarray:
    meaning = np.full(256, 2, np.uint8)
    for number, listed in ((BACKGROUND, values.background), (DEFECT, values.defect), (IGNORE, values.ignore)):
        meaning[list(listed)] = number
    if lenient:
        meaning[meaning == 2] = BACKGROUND
    mask = meaning[grey]
    unnamed = np.unique(grey[mask == 2])
    if len(unnamed):
        few = ", ".join(map(str, unnamed[:5])) + (" …" if len(unnamed) > 5 else "")
        raise Refused("unexpected mask values", f"holds {few}, of which data.mask_values says nothing")
    return mask


def _explain_values(values: np.ndarray) -> str:
    few = ", ".join(str(v) for v in values[:5]) + (" …" if len(values) > 5 else "")
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
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise UserError(
        "\n".join(
            [
                f"The data set {name} in {printable(str(root))} has {count}:",
                *lines,
                "Put these right or leave the files out; python -m cpanet.data check FOLDER lists them all.",
            ]
        )
    )
