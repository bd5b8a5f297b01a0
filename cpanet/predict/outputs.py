"""Files of a prediction: pictures below ``masks/``, ``overlays/`` and ``probabilities/``, and its tables."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cpanet.errors import UserError
from cpanet.files import remove_leftovers
from cpanet.overlay import overlay
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
    "score",  # how likely the picture shows a defect
    "answer",  # defect or no defect
    "is_support",
    "iou",  # where the picture lies in a data set beside its mask
    "mask",
)
DEFECT, NO_DEFECT = "defect", "no defect"
SIXTEEN_BITS = 65535


class Outputs:
    """Writers of one prediction, each picture's files whole before its row. Use as a context."""

    def __init__(self, directory: Path, category: str, overlays: bool, probabilities: bool) -> None:
        self.directory, self._category = directory, category
        self._overlays, self._probabilities = overlays, probabilities
        self._stack = contextlib.ExitStack()
        self._skipped: Any = None

    def __enter__(self) -> Outputs:
        self._coco = CocoWriter(self.directory / "annotations.json", self._category, self._stack)
        self._rows = self._table("predictions.csv", COLUMNS)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()  # whole after an error, too

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
        is_support: bool,
        probability: np.ndarray,
        mask: np.ndarray,
        regions: Sequence[Region],
        truth: np.ndarray | None,
        iou: float | None,
        score: float,
    ) -> None:
        """One picture's results: image uint8 RGB (H, W, 3), probability float (H, W), mask and truth bool (H, W)."""
        target = self._write("masks", query, mask.astype(np.uint8) * 255)
        if self._probabilities:
            self._write("probabilities", query, sixteen_bits(probability))
        if self._overlays:
            self._write("overlays", query, overlay(image, mask, truth, strength=0.35, rim=True)[..., ::-1])
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
                "score": f"{score:.4f}",
                "answer": DEFECT if area else NO_DEFECT,
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


def remove_outputs(directory: Path) -> None:
    """Remove what an earlier prediction wrote into ``directory``, by its own table; other files stay."""
    remove_leftovers(directory)
    try:
        with (directory / "predictions.csv").open(newline="", encoding="utf-8") as stream:
            masks = [
                row["mask"] for row in csv.DictReader(stream) if (row.get("mask") or "").startswith("masks/")
            ]
    except (OSError, ValueError):
        return
    names = ["annotations.json", "skipped.csv", "result.json", "predictions.csv"]
    for folder in ("masks", "overlays", "probabilities"):
        names += [f"{folder}/{mask.partition('/')[2]}" for mask in masks if ".." not in mask.split("/")]
    for name in names:
        (directory / name).unlink(missing_ok=True)


def sixteen_bits(probability: np.ndarray) -> np.ndarray:
    """Probabilities 0–1 as uint16, 65535 × probability, rounded; ½ down: values above 32767 exceed a threshold of 0.5."""
    return np.ceil(np.clip(probability, 0, 1).astype(np.float64) * SIXTEEN_BITS - 0.5).astype(np.uint16)
