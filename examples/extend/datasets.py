"""A data set of one's own: pictures, masks and classes that a list names, wherever they lie below a folder."""

from __future__ import annotations

import csv
import hashlib

import numpy as np

from cpanet.data import DataSet, DefectDataset, Layout, equal_runs, read_image
from cpanet.errors import UserError
from cpanet.section import Count


class Listed(DataSet):
    """``root/pictures.csv`` has a row a picture: ``picture``, ``mask`` (files below ``root``) and ``class``.

    ``threshold``: grey above it is defect. A fold tests as many classes as another; there are ``data.folds``, else 2.
    """

    threshold: Count = 127

    def layout(self) -> Layout:
        """Classes in alphabetical order."""
        classes = tuple(sorted({row["class"] for row in self.rows()}))
        return Layout(self.name, classes, equal_runs(classes, self.folds or 2))

    def read(self, min_images: int) -> DefectDataset:
        """Everything decoded."""
        layout, rows, root = self.layout(), self.rows(), self.folder()
        labels = np.array([layout.classes.index(row["class"]) for row in rows])
        few = [name for i, name in enumerate(layout.classes) if np.count_nonzero(labels == i) < min_images]
        if few:
            raise UserError(
                f"{root}: fewer than {min_images} pictures of {', '.join(few)}. List more of them."
            )
        images = [read_image(root / row["picture"]) for row in rows]
        masks = [(read_image(root / row["mask"])[..., 0] > self.threshold).astype(np.uint8) for row in rows]
        digest = hashlib.sha256()
        for row in rows:
            digest.update(f"{row['picture']} {row['class']}\n".encode())
            digest.update((root / row["picture"]).read_bytes() + (root / row["mask"]).read_bytes())
        names = [row["picture"] for row in rows]
        return DefectDataset(
            self.name, root, layout.classes, images, masks, labels, names, layout.folds, digest.hexdigest()
        )

    def rows(self) -> list[dict[str, str]]:
        """The list."""
        path = self.folder() / "pictures.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}). Check data.root.") from error
