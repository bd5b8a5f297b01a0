"""What can be wrong with a data set: the rules for masks, and one message for all problems at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

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


class MaskRule(NamedTuple):
    """Which grey values are defect.

    ``threshold`` given: grey > threshold is defect. Otherwise 255 is, and the rest must be 0, unless
    ``lenient``: then the rest is background, whatever it is, as in the released code.
    """

    threshold: int | None = None
    lenient: bool = False


def binarise(grey: np.ndarray, rule: MaskRule) -> tuple[np.ndarray, str]:
    """Mask uint8 {0, 1} of a grey one, and a remark where it was read in a way that should be said.

    ``Refused`` for unexpected values, for a mask without a defect pixel and, unless lenient, for one without
    a background pixel.
    """
    remark = ""
    if rule.threshold is not None:
        mask = grey > rule.threshold
        meaning = f"above {rule.threshold}"
    else:
        values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        mask = grey == 255
        meaning = "255"
        if set(values) == {0, 1}:
            mask, remark = grey == 1, "masks of 0 and 1 (read as 0 and 255)"
        elif not set(values) <= {0, 255}:
            if not rule.lenient:
                raise Refused("unexpected mask values", _explain_values(values))
            remark = "masks with grey values between 0 and 255 (only 255 counts as defect)"
    defect = int(np.count_nonzero(mask))
    if defect == 0:
        raise Refused("empty mask", f"has no defect pixel (none is {meaning})")
    if defect == mask.size:
        if not rule.lenient:
            raise Refused("full mask", f"has no background pixel (all are {meaning}): inverted or blank?")
        remark = remark or "masks that cover the whole image"
    return mask.astype(np.uint8), remark


def _explain_values(values: np.ndarray) -> str:
    if 0 in values and 255 in values:
        return (
            f"holds {len(values)} grey values; defect is 255 and the rest 0, so soft edges (antialiasing, lossy "
            "saving) belong to neither. data.mask_threshold=127 takes everything above 127 as defect, the rest as none"
        )
    few = ", ".join(str(v) for v in values[:5]) + (" …" if len(values) > 5 else "")
    return (
        f"holds the grey values {few}; defect must be 255 and the rest 0, or give data.mask_threshold "
        "(grey above it is defect)"
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
