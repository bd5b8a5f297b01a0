"""``annotations.json`` in the COCO format (https://cocodataset.org/#format-data), written while pictures pass by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cpanet
from cpanet.files import replacing
from cpanet.predict.regions import Region, polygon

DEFECT = 1  # the one category


class CocoWriter:
    """Collects images and annotations in two files beside ``path`` and joins them at the end: memory stays flat.

    Leaving the ``with`` block finishes the file, after an error too, with what was added until then.
    """

    def __init__(self, path: Path, category: str) -> None:
        self.path, self.category = path, category
        self._parts = [path.with_name(f".{path.name}.{part}") for part in ("images", "annotations")]
        self._files: list[TextIO] = []
        self._counts = [0, 0]

    def __enter__(self) -> CocoWriter:
        self._files = [part.open("w+", encoding="utf-8") for part in self._parts]
        return self

    def add(self, name: str, height: int, width: int, regions: Sequence[Region]) -> None:
        """A picture by its file name, and an annotation for each of its regions."""
        image = self._write(0, {"file_name": name, "height": height, "width": width})
        for region in regions:
            self._write(
                1,
                {
                    "image_id": image,
                    "category_id": DEFECT,
                    "segmentation": [polygon(region)],
                    "area": region.area,
                    "bbox": list(region.box),
                    "iscrowd": 0,
                    "score": round(region.confidence, 4),
                },
            )

    def _write(self, part: int, entry: dict[str, Any]) -> int:
        self._counts[part] += 1
        text = json.dumps({"id": self._counts[part], **entry}, ensure_ascii=False)
        self._files[part].write((",\n" if self._counts[part] > 1 else "") + text)
        return self._counts[part]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        head = {
            "info": {"description": f"predicted by cpanet {cpanet.__version__}", "version": "1.0"},
            "licenses": [],
            "categories": [{"id": DEFECT, "name": self.category, "supercategory": "defect"}],
        }
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as whole:
            whole.write(json.dumps(head, ensure_ascii=False)[:-1])
            for key, file in zip(("images", "annotations"), self._files):
                file.seek(0)
                whole.write(f',\n"{key}": [\n')
                shutil.copyfileobj(file, whole)
                whole.write("]")
                file.close()
            whole.write("}\n")
        for part in self._parts:
            part.unlink()
