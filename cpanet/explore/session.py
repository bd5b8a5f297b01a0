"""Session of the page: a network, a data set and a run's recorded episodes, where there are such."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpanet.data import DefectDataset
from cpanet.errors import UserError
from cpanet.metrics import count
from cpanet.overlay import overlay
from cpanet.predict import Segmenter
from cpanet.records.result_file import DamagedResult, read_rows

SAME = 5e-4  # of an IoU: rounding between machines
MOST_QUERIES = 64  # at a time: a page is for looking; task=predict is for folders


class Support(NamedTuple):
    """A picture uint8 RGB (H, W, 3) and its mask bool (H, W)."""

    picture: np.ndarray
    mask: np.ndarray


class QueryPicture(NamedTuple):
    """A picture uint8 RGB (H, W, 3), its name, and its true mask bool (H, W) where that is known."""

    name: str
    picture: np.ndarray
    truth: np.ndarray | None = None


class Prediction(NamedTuple):
    """A query with the probability of defect and the prototype's similarity at every pixel, float32 (H, W)."""

    query: QueryPicture
    probability: np.ndarray
    similarity: np.ndarray

    def mask(self, threshold: float) -> np.ndarray:
        """Predicted defect, bool (H, W)."""
        return self.probability > threshold

    def overlay(self, threshold: float) -> np.ndarray:
        """The query with the prediction in red and the truth outlined in green, uint8 RGB (H, W, 3)."""
        return overlay(self.query.picture, filled=self.mask(threshold), outlined=self.query.truth)

    def sentence(self, threshold: float) -> str:
        """The pictures' content in numbers, as a sentence."""
        mask, values = self.mask(threshold), self.similarity
        parts = [f"{np.count_nonzero(mask):,} pixels marked ({mask.mean():.1%})"]
        if self.query.truth is not None:
            counts = count(mask, self.query.truth.astype(np.uint8))
            parts.append(f"IoU {counts.iou_fg:.3f}")
        parts.append(f"similarity {values.min():.2f} (blue) to {values.max():.2f} (yellow)")
        return f"**{self.query.name}**: " + ", ".join(parts)


class RecordedEpisode(NamedTuple):
    """An episode of ``episodes.csv``: names as in the data set, IoU of the defect as recorded."""

    iou: float
    class_name: str
    query: str
    supports: tuple[str, ...]


@dataclass
class Session:
    """One network for everybody who looks at the page; its calls are made one after another.

    ``classes``: those of the data set, the fold's test classes first. ``episodes``: of the run, by evaluation.
    ``epoch``: the evaluation whose weights are loaded, as far as that is known.
    """

    segmenter: Segmenter
    dataset: DefectDataset | None
    fold: int = 0
    episodes: dict[str, list[RecordedEpisode]] = field(default_factory=dict)
    epoch: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.unseen: list[str] = []
        self.classes: list[str] = []
        self._index: dict[str, int] = {}
        if (dataset := self.dataset) is not None:
            self.unseen = [dataset.classes[c] for c in dataset.split(self.fold).test_classes]
            self.classes = [*self.unseen, *(c for c in dataset.classes if c not in self.unseen)]
            self._index = {name: number for number, name in enumerate(dataset.names)}

    def pictures(self, class_name: str) -> list[tuple[np.ndarray, str]]:
        """Pictures of a class with their masks outlined, and their names."""
        if self.dataset is None:
            return []
        wanted = self.dataset.classes.index(class_name)
        indices = np.flatnonzero(self.dataset.labels == wanted)
        return [(self.outlined(self.dataset.names[i]), self.dataset.names[i]) for i in indices]

    def outlined(self, name: str) -> np.ndarray:
        """A picture of the data set with its mask outlined, uint8 RGB (H, W, 3)."""
        picture, mask = self.support(name)
        return overlay(picture, outlined=mask)

    def support(self, name: str) -> Support:
        """A picture of the data set with its mask."""
        index = self._find(name)
        assert self.dataset is not None
        return Support(self.dataset.images[index], self.dataset.masks[index] == 1)

    def query(self, name: str) -> QueryPicture:
        """A picture of the data set as a query."""
        return QueryPicture(name, *self.support(name))

    def segment(self, supports: Sequence[Support], queries: Sequence[QueryPicture]) -> list[Prediction]:
        """Every query, from ``supports``; nothing where there are none, or none has a mask.

        Raises UserError where there are more than MOST_QUERIES, and for supports that cannot be used.
        """
        marked = [support for support in supports if support.mask.any()]
        if not marked or not queries:
            return []
        if len(queries) > MOST_QUERIES:
            raise UserError(
                f"{len(queries)} queries: the page takes {MOST_QUERIES} at a time; task=predict takes any number."
            )
        pictures = [query.picture for query in queries]
        with self._lock:
            try:
                self.segmenter.fit([s.picture for s in marked], [s.mask for s in marked])
                found = zip(self.segmenter.predict_proba(pictures), self.segmenter.similarity(pictures))
                return [Prediction(query, *maps) for query, maps in zip(queries, found)]
            except ValueError as error:
                raise UserError(f"{error}.") from error

    def repeat(self, record: RecordedEpisode) -> tuple[np.ndarray, float]:
        """A recorded episode once more, by the evaluation's own rule: mask bool (H, W) of the query, and IoU."""
        query = self._find(record.query)
        assert self.dataset is not None
        supports = [self._find(name) for name in record.supports]
        with self._lock:
            mask = self.segmenter.evaluated(
                [self.dataset.images[i] for i in supports],
                [self.dataset.masks[i] for i in supports],
                self.dataset.images[query],
            )
        counts = count(mask, self.dataset.masks[query])
        return mask, counts.iou_fg

    def compared(self, which: str, record: RecordedEpisode, iou: float) -> str:
        """The IoU of an episode in one number, or both with the reason why the page's differs."""
        if abs(iou - record.iou) < SAME:
            return f"IoU {iou:.3f}, here as in the record"
        if self.epoch and which != self.epoch:
            reason = f"the record is of the {which} epoch, the page has the weights of the {self.epoch} one"
        else:
            reason = "the data set, the weights or the size of the pictures are not those of the run any more"
        return f"IoU {record.iou:.3f} in the record, {iou:.3f} here: {reason}"

    def _find(self, name: str) -> int:
        if name not in self._index:
            raise UserError(
                f"{name} is not in the data set{'' if self.dataset else ', which was not found'}."
            )
        return self._index[name]


def episodes_file(checkpoint: str | Path | None) -> Path | None:
    """``episodes.csv`` of the run that ``checkpoint``, a run's directory or a file in it, belongs to; None without."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    run = path if path.is_dir() else path.parent.parent
    file = run / "episodes.csv"
    return file if file.is_file() else None


def read_episodes(file: Path) -> dict[str, list[RecordedEpisode]]:
    """Records of each evaluation ("best", "last", "floor" where there is one), the lowest IoU first.

    Raises UserError for a file that is damaged.
    """
    found: dict[str, list[RecordedEpisode]] = {}
    try:
        for row in read_rows(file.parent, file.name) or ():
            union = int(row["union_fg"])
            record = RecordedEpisode(
                int(row["inter_fg"]) / union if union else 0.0,
                row["class"],
                row["query"],
                tuple(row["supports"].split(";")),
            )
            found.setdefault(row["which"], []).append(record)
    except (DamagedResult, KeyError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error
    return {which: sorted(records) for which, records in found.items()}
