"""The data sets that a configuration names, each a class: what it is called, its classes and folds, how it is read."""

from pathlib import Path
from typing import ClassVar, Optional

from cpanet.data.catalog import EMBEDDED, FSSD12, METAL8, Layout, describe_folder, load_dataset, read_set
from cpanet.data.dataset import DefectDataset
from cpanet.data_section import DataSection
from cpanet.errors import UserError


class DataSet(DataSection):
    """The source of pictures, masks, classes and folds. Derive from it to add your own.

    Class folders with ``Images/`` and ``GT/`` below ``root`` need :attr:`LAYOUT` alone, or :meth:`layout` where that
    depends on the folder. What has another form overrides :meth:`read`, too.
    """

    LAYOUT: ClassVar[Optional[Layout]] = None  # classes and folds, where they are the same for everybody
    VARIABLE: ClassVar[str] = ""  # of the environment, that may give ``root``

    def layout(self) -> Layout:
        """Classes and folds; decodes no picture. Raises UserError where they cannot be had."""
        if self.LAYOUT is None:
            raise UserError(f"{type(self).__name__}: needs LAYOUT, or layout(), as cpanet.data.DataSet says.")
        return self.LAYOUT

    def read(self, min_images: int) -> DefectDataset:
        """Everything decoded, with ``min_images`` of each class at least. Raises UserError with all problems."""
        layout, root = self.layout(), self.folder()
        return read_set(layout, root, layout.rule(self.mask_threshold, self.mask_values), min_images)

    def folder(self) -> Path:
        """``root``. Raises UserError where it is not given."""
        if self.root is None:
            raise UserError(
                f"data.root is not set. Give the folder that holds {self.name}: data.root=FOLDER."
            )
        return Path(self.root)


class FSSD12Set(DataSet):
    """FSSD-12."""

    LAYOUT, VARIABLE = FSSD12, "FSSD12_ROOT"


class Metal8Set(DataSet):
    """metal8."""

    LAYOUT, VARIABLE = METAL8, "METAL8_ROOT"


class EmbeddedSet(DataSet):
    """Procedural strip steel, drawn into the cache at its first use."""

    LAYOUT, synthetic = EMBEDDED, True

    def read(self, min_images: int) -> DefectDataset:
        root = Path(self.root) if self.root else None
        return load_dataset("embedded", root, None, self.mask_threshold, min_images, None, self.mask_values)


class Folder(DataSet):
    """Any folder in the layout of FSSD-12: folds from its ``dataset.yaml``, else ``folds`` equal runs of classes."""

    def layout(self) -> Layout:
        return describe_folder(self.folder(), self.folds)
