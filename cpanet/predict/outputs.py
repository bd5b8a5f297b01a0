"""What a prediction leaves behind: pictures below ``masks/``, ``overlays/`` and ``probabilities/``, and its tables."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from cpanet.errors import UserError
from cpanet.predict.coco import CocoWriter
from cpanet.predict.queries import Query
from cpanet.predict.regions import Region

COLUMNS = (
    "image",
    "width",
    "height",
    "area",  # pixels
    "fraction",
    "regions",
    "boxes",  # left top width height, of several joined by ;
    "mean_confidence",  # mean probability of the marked pixels
    "is_support",
    "iou",  # where the picture lies in a data set beside its mask
    "mask",
)
SIXTEEN_BITS = 65535
MARKED, TRUE = (235, 60, 60), (64, 220, 90)


class Outputs:
    """Writers of one prediction, each picture's files whole before its row. Use as a context."""

    def __init__(self, directory: Path, category: str, overlays: bool, probabilities: bool) -> None:
        self.directory = directory
        self._overlays, self._probabilities = overlays, probabilities
        self._stack = contextlib.ExitStack()
        self._category = category
        self._skipped: Any = None

    def __enter__(self) -> Outputs:
        self._coco = self._stack.enter_context(
            CocoWriter(self.directory / "annotations.json", self._category)
        )
        self._rows = self._table("predictions.csv", COLUMNS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _table(self, name: str, columns: Sequence[str]) -> Any:
        # a line at a time reaches the disk: after a stop the table holds every picture that was done
        stream = self._stack.enter_context(
            (self.directory / name).open("w", newline="", encoding="utf-8", buffering=1)
        )
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        return writer

    def add(
        self,
        query: Query,
        image: np.ndarray,
        probability: np.ndarray,
        mask: np.ndarray,
        regions: Sequence[Region],
        truth: np.ndarray | None = None,
        iou: float | None = None,
        is_support: bool = False,
    ) -> None:
        """One picture's results: image uint8 RGB (H, W, 3), probability float (H, W), mask and truth bool (H, W)."""
        target = self._write("masks", query, mask.astype(np.uint8) * 255)
        if self._probabilities:
            self._write("probabilities", query, np.rint(probability * SIXTEEN_BITS).astype(np.uint16))
        if self._overlays:
            self._write("overlays", query, overlay(image, mask, truth)[..., ::-1])
        height, width = mask.shape
        area = int(np.count_nonzero(mask))
        self._coco.add(query.name, height, width, regions)
        self._rows.writerow(
            {
                "image": query.name,
                "width": width,
                "height": height,
                "area": area,
                "fraction": f"{area / mask.size:.6f}",
                "regions": len(regions),
                "boxes": ";".join(" ".join(map(str, region.box)) for region in regions),
                "mean_confidence": f"{float(probability[mask].mean(dtype=np.float64)):.4f}" if area else "",
                "is_support": "yes" if is_support else "no",
                "iou": "" if iou is None else f"{iou:.4f}",
                "mask": target.relative_to(self.directory).as_posix(),
            }
        )

    def skip(self, query: Query, reason: str) -> None:
        """A picture that cannot be used, in ``skipped.csv``."""
        if self._skipped is None:
            self._skipped = self._table("skipped.csv", ("image", "reason"))
        self._skipped.writerow({"image": query.name, "reason": reason})

    def _write(self, folder: str, query: Query, picture: np.ndarray) -> Path:
        path = self.directory / folder / f"{query.output}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture))[1].tobytes())
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}. What was done so far is kept."
            ) from error
        return path


def overlay(image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """``image`` with ``mask`` tinted and outlined in red, and what is known to be defect outlined in green."""
    picture = image.copy()
    picture[mask] = (0.65 * picture[mask] + 0.35 * np.array(MARKED)).astype(np.uint8)
    thickness = max(1, round(max(mask.shape) / 600))
    for marked, colour in ((mask, MARKED), (truth, TRUE)):
        if marked is not None:
            outlines, _ = cv2.findContours(marked.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, colour, thickness)
    return picture
