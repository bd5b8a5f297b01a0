"""The section ``data`` of the configuration: what every data set is told. Reading it is :class:`cpanet.data.DataSet`'s.

(pydantic reads these annotations at run time, on Python 3.9 too: hence ``Optional``.)
"""

from typing import Annotated, Any, ClassVar, Optional

from pydantic import AfterValidator, Field

from cpanet.section import Component, Section, Text

Grey = Annotated[int, Field(ge=0, le=255)]


def _multiple_of_8(size: int) -> int:
    if size % 8:
        raise ValueError(f"must be a multiple of 8, such as {max(32, round(size / 8) * 8)}")
    return size


class Meanings(Section):
    """Meaning of the values of masks, where they are not 255 (defect) and 0."""

    defect: Annotated[list[Grey], Field(min_length=1)]
    ignore: list[Grey] = []
    background: list[Grey] = [0]


class DataSection(Component):
    """Keys of ``data``. Its class derives from :class:`cpanet.data.DataSet`, which the configuration does not import.

    image_size: side of the square that the network sees. The other fields are explained in ``conf/config.yaml``.
    """

    KEY: ClassVar[str] = "data"
    BASE: ClassVar[str] = "cpanet.data.DataSet"
    synthetic: ClassVar[bool] = False  # drawn: needs no ``root``, and profile=auto takes it for a trial

    name: Text
    label: Optional[Text] = None  # in tables; None: the name
    root: Optional[Text] = None
    image_size: Annotated[int, Field(ge=32, le=1024), AfterValidator(_multiple_of_8)]
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    mask_threshold: Optional[Annotated[int, Field(ge=0, le=254)]] = None  # grey above it is defect
    mask_values: Optional[Meanings] = None  # excludes mask_threshold
    folds: Optional[Annotated[int, Field(ge=2)]] = None
    leave_out: Optional[Annotated[int, Field(ge=0)]] = None  # a training class, by its number among them

    def layout(self) -> Any:
        """Classes and folds."""
        raise NotImplementedError

    def read(self, min_images: int) -> Any:
        """Everything decoded, with ``min_images`` of each class at least."""
        raise NotImplementedError
