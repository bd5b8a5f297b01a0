"""``annotations.json`` in the COCO format (https://cocodataset.org/#format-data), written while pictures pass by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

import cpanet
from cpanet.files import replacing
from cpanet.predict.regions import Region, polygon

DEFECT = 1  # the one category


class CocoWriter:
    """Writes images to the file as they come, and annotations to a nameless file, which is copied behind them at the end.

    So memory stays flat. Closing ``stack`` finishes the file, with what was added until then.
    """

    def __init__(self, path: Path, category: str, stack: ExitStack) -> None:
        temporary = stack.enter_context(replacing(path))
        self._images: TextIO = stack.enter_context(temporary.open("w", encoding="utf-8"))
        unnamed = TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115 (closed by the stack)
        self._annotations: TextIO = stack.enter_context(unnamed)
        self._pictures = self._regions = 0
        head = {
            "info": {"description": f"predicted by cpanet {cpanet.__version__}", "version": "1.0"},
            "licenses": [],
            "categories": [{"id": DEFECT, "name": category, "supercategory": "defect"}],
        }
        self._images.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"images": [\n')
        stack.callback(self._finish)

    def add(self, name: str, height: int, width: int, regions: Sequence[Region]) -> None:
        """A picture by its file name, and an annotation for each of its regions."""
        self._pictures += 1
        _write(self._images, self._pictures, {"file_name": name, "height": height, "width": width})
        for region in regions:
            self._regions += 1
            annotation = {
                "image_id": self._pictures,
                "category_id": DEFECT,
                "segmentation": [polygon(region)],
                "area": region.area,
                "bbox": list(region.box),
                "iscrowd": 0,
                "score": round(region.confidence, 4),
            }
            _write(self._annotations, self._regions, annotation)

    def _finish(self) -> None:
        self._images.write('],\n"annotations": [\n')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._images)
        self._images.write("]}\n")


def _write(file: TextIO, number: int, entry: dict[str, Any]) -> None:
    file.write((",\n" if number > 1 else "") + json.dumps({"id": number, **entry}, ensure_ascii=False))
