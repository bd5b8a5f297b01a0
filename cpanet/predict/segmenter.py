"""``cpanet.load(path).fit(support_images, support_masks).predict(images)``: NumPy in and out, in scikit-learn's manners."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import cv2
import numpy as np

from cpanet.checkpoint.description import Description, describe
from cpanet.data import transforms
from cpanet.data.images import MAX_PIXELS
from cpanet.data.transforms import canvas_shape
from cpanet.errors import UserError
from cpanet.metrics import count, iou, predicted
from cpanet.predict.calibration import Calibration, calibrate
from cpanet.predict.tiling import Blend, Tile, Tiling, is_tiled, support_windows, tiles

if TYPE_CHECKING:
    from cpanet.predict.network import Network

DEFAULT_SIZE = 200  # pixels, the paper's; of the training-free method, which has no training to take it from
AUTO_THRESHOLD = 0.5  # of calibrated probabilities
PathLike = Union[str, "os.PathLike[str]"]
Threshold = Union[float, str]


class SeenSupports(NamedTuple):
    """The supports as the network saw them: features (N, C, h, w) and masks (N, S, S) of N windows, and whose they are."""

    features: np.ndarray
    masks: np.ndarray
    owners: np.ndarray


class NotFittedError(ValueError, AttributeError):
    """A prediction was asked for before ``fit`` (both classes, as scikit-learn's error of the same name)."""


@dataclass(eq=False, repr=False)
class Segmenter:
    """Marks in any picture the defect that a few annotated pictures show.

    Parameters
    ----------
    checkpoint: a run's directory (its best epoch), a ``.safetensors`` or a released ``.pth`` file; None: the training-free
        prototype comparison.
    threshold: probability above which a pixel counts as defect; ``"auto"``: 0.5 of probabilities that the supports
        calibrate, see :mod:`cpanet.predict.calibration`.
    tiling: ``"auto"`` cuts pictures up that are more than twice as large as a tile, True all that are larger, False none.
    tile: side of a tile in pixels; None: that of the training pictures, else of the largest support.
    overlap: of neighbouring tiles, a fraction of their side.
    image_size: side in pixels of the square that the network sees; None: what it was trained with.
    batch_size: pictures or tiles that go through the network at a time.
    device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    backbone, weights, seed, stage, support_mask: of the training-free comparison alone, see
        :class:`cpanet.models.PrototypeBaseline`.

    Attributes
    ----------
    ``prototype_``: what ``fit`` learnt, float32; ``n_supports_``: K; ``tile_``: side of a tile in pixels;
    ``calibration_``: what the supports say of probability 0.5.

    Pictures are uint8 RGB (H, W, 3) or grey (H, W), of any size, in a list or an array (N, …); masks are (H, W): bool,
    0 and 1, or 0 and 255; where all three occur 1 is defect and 255 is ignored. ``cpanet.data.read_image`` reads a picture
    as the commands do.
    """

    checkpoint: PathLike | None = None
    threshold: Threshold = "auto"
    tiling: Tiling = "auto"
    tile: int | None = None
    overlap: float = 0.25
    image_size: int | None = None
    batch_size: int = 4
    device: str = "auto"
    backbone: str | Mapping[str, Any] = "vgg16_bn"
    weights: str = "auto"
    seed: int = 0
    stage: str = "f3"
    support_mask: str = "area"

    # ------------------------------------------------------------------ scikit-learn's manners

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (``deep`` changes nothing: none of them is an estimator)."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params: Any) -> Segmenter:
        """Change arguments; what belongs to the network is loaded anew at the next ``fit``. Returns self."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"there is no parameter {name!r}; there are {', '.join(self.get_params())}")
            if name not in ("threshold", "tiling", "overlap") and getattr(self, name) != value:
                for made in ("network", "description", "prototype_"):
                    self.__dict__.pop(made, None)
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        values = ((field, getattr(self, field.name)) for field in fields(self))
        typed = [f"{field.name}={value!r}" for field, value in values if value != field.default]
        return f"{type(self).__name__}({', '.join(typed)})"

    # ------------------------------------------------------------------ use

    @cached_property
    def description(self) -> Description | None:
        """Description of the checkpoint; None for the training-free comparison. Loads no weights."""
        return None if self.checkpoint is None else describe(os.fspath(self.checkpoint))

    @property
    def size(self) -> int:
        """Side in pixels of the square that the network sees."""
        if self.image_size is not None:
            return self.image_size
        return DEFAULT_SIZE if self.description is None else self.description.image_size

    def load(self) -> Segmenter:
        """Load the network now rather than at the first ``fit``; returns self. Raises UserError where it cannot be had."""
        _ = self.network
        return self

    def fit(self, support_images: Sequence[np.ndarray], support_masks: Sequence[np.ndarray]) -> Segmenter:
        """Learn the defect from K ≥ 1 pictures and their masks: their prototypes, averaged. Returns self.

        A support much larger than a tile is looked at in windows around its defect, at the tiles' scale.
        Raises ValueError for pictures or masks that are not what the class says, and for a mask without defect.
        """
        if isinstance(self.threshold, str) and self.threshold != "auto":
            raise ValueError(f"threshold={self.threshold!r}: give a probability or 'auto'")
        images = _pictures(support_images)
        masks = _masks(support_masks, images)
        network = self.network
        recorded = None if self.description is None else self.description.picture_side
        self.tile_ = self.tile or recorded or max(max(mask.shape) for mask in masks)
        windows = [(number, w) for number, mask in enumerate(masks) for w in self._windows(mask)]
        prepared = [transforms.test(images[n][w.window], masks[n][w.window], self.size) for n, w in windows]
        seen = SeenSupports(
            network.features(canvas for canvas, _ in prepared),
            np.stack([mask for _, mask in prepared]),
            np.array([number for number, _ in windows]),
        )
        self.prototype_ = network.encode(seen.features, list(seen.masks))
        self.calibration_ = calibrate(
            list(network.compare(seen.features, self.prototype_)), list(seen.masks), len(images)
        )
        self.n_supports_ = len(images)
        self._seen = seen
        return self

    def lost(self) -> list[int]:
        """Numbers of the supports whose mask has no defect pixel left at the size that the network sees."""
        self._check_fitted()
        shown = {int(owner) for owner, mask in zip(self._seen.owners, self._seen.masks) if np.any(mask == 1)}
        return [number for number in range(self.n_supports_) if number not in shown]

    @property
    def threshold_(self) -> float:
        """The probability above which a pixel counts as defect."""
        return AUTO_THRESHOLD if isinstance(self.threshold, str) else self.threshold

    def agreement(self) -> list[float]:
        """How well each support is marked from the others: IoU at the supports' threshold; [] of a single support."""
        self._check_fitted()
        network, seen, found = self.network, self._seen, []
        for number in range(self.n_supports_ if self.n_supports_ > 1 else 0):
            own = seen.owners == number
            prototype = network.encode(seen.features[~own], list(seen.masks[~own]))
            counts = [
                count(self._probability(difference) > self.threshold_, mask)
                for difference, mask in zip(network.compare(seen.features[own], prototype), seen.masks[own])
            ]
            found.append(iou(sum(c.inter_fg for c in counts), sum(c.union_fg for c in counts)))
        return found

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The defect in every picture: bool (H, W), where its probability exceeds the threshold."""
        return [probability > self.threshold_ for probability in self.predict_proba(images)]

    def predict_proba(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The probability of defect at every pixel of every picture: float32 (H, W) in 0–1.

        With ``threshold="auto"`` calibrated on the supports, otherwise as the network gives it. (Of the training-free
        comparison: a logistic function of the cosine difference, 0.5 where both are equal, as steep as the supports say.)
        """
        self._check_fitted()
        pictures = _pictures(images)
        parts = [self.tiles_of(*picture.shape[:2]) for picture in pictures]
        whole = self._differences(picture for picture, own in zip(pictures, parts) if len(own) == 1)
        return [
            self._blended(picture, own)
            if len(own) > 1
            else self._probability(_at_size(next(whole), *picture.shape[:2]))
            for picture, own in zip(pictures, parts)
        ]

    def evaluated(
        self, support_images: Sequence[np.ndarray], support_masks: Sequence[np.ndarray], image: np.ndarray
    ) -> np.ndarray:
        """``image`` marked as an evaluation's episode is, bool (H, W): nothing is cut up, the network's own threshold.

        Forgets what ``fit`` learnt.
        """
        tiling, self.tiling = self.tiling, False
        try:
            self.fit(support_images, support_masks)
        finally:
            self.tiling = tiling
        (difference,) = self._differences(_pictures([image]))
        return predicted(difference, *image.shape[:2])

    def similarity(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Cosine of the prototype and the feature at every pixel, float32 (H, W) in −1–1; pictures are never tiled."""
        self._check_fitted()
        pictures = _pictures(images)
        found = self.network.similarities(self._canvases(pictures), self.prototype_)
        size = (self.size, self.size)
        return [
            _at_size(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), *picture.shape[:2])
            for picture, grid in zip(pictures, found)
        ]

    def tiles_of(self, height: int, width: int) -> list[Tile]:
        """The tiles that a picture of this size is cut into; one that is the whole of it where it is not cut up."""
        self._check_fitted()
        if is_tiled(height, width, self.tile_, self.tiling):
            return tiles(height, width, self.tile_, self.overlap)
        return [Tile(0, 0, height, width)]

    # ------------------------------------------------------------------ parts

    @cached_property
    def network(self) -> Network:
        """The network, loaded at the first use. Raises UserError where it cannot be had."""
        from cpanet import runtime

        if self.size % 8 or self.size < 32:
            raise UserError(f"image_size={self.size}: must be a multiple of 8, at least 32.")
        description = self.description or self._training_free
        runtime.prepare(self.device)
        from cpanet.checkpoint.restore import restore
        from cpanet.predict.network import Network

        return Network(restore(description), self.size, self.batch_size, description.summed_shots)

    @property
    def _training_free(self) -> Description:
        named = {"name": self.backbone} if isinstance(self.backbone, str) else self.backbone
        config = {
            "method": "prototype",
            "backbone": {**named, "weights": self.weights},
            "seed": self.seed,
            "baseline": {"stage": self.stage},
            "protocol": {"support_mask": self.support_mask},
        }
        return Description(None, config)

    def _probability(self, difference: np.ndarray) -> np.ndarray:
        found = self.calibration_ if self.calibration_.is_found else Calibration()
        if isinstance(self.threshold, str):
            return found.probability(difference)
        trained = self.description is not None and self.description.path is not None
        return Calibration(0.0, 1.0 if trained else found.scale).probability(difference)

    def _check_fitted(self) -> None:
        if not hasattr(self, "prototype_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with support images and their "
                "masks before using it."
            )

    def _windows(self, mask: np.ndarray) -> list[Tile]:
        if is_tiled(mask.shape[0], mask.shape[1], self.tile_, self.tiling):
            return support_windows(mask == 1, self.tile_)
        return [Tile(0, 0, mask.shape[0], mask.shape[1])]

    def _canvases(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (transforms.test(p, np.zeros(p.shape[:2], np.uint8), self.size)[0] for p in pictures)

    def _differences(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return self.network.differences(self._canvases(pictures), self.prototype_)

    def _blended(self, picture: np.ndarray, parts: Sequence[Tile]) -> np.ndarray:
        height, width = picture.shape[:2]
        blend = Blend(height, width, self.overlap)
        for tile, difference in zip(parts, self._differences(picture[t.window] for t in parts)):
            blend.add(tile, self._probability(_at_size(difference, tile.height, tile.width)))
        return blend.mean()


def load(checkpoint: PathLike | None, **parameters: Any) -> Segmenter:
    """The network of a checkpoint, ready to ``fit``: ``cpanet.load("outputs/fold=2").fit(images, masks).predict(others)``.

    ``parameters``: those of :class:`Segmenter`. Raises :class:`cpanet.errors.UserError` where the checkpoint cannot be read.
    """
    return Segmenter(checkpoint, **parameters).load()


def _at_size(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture's part of a canvas (S, S), bilinear at the picture's own size (height, width)."""
    h, w = canvas_shape(height, width, canvas.shape[0])
    part = canvas[:h, :w]
    if (h, w) == (height, width):
        return part
    return cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)


def _pictures(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """uint8 RGB (H, W, 3) each."""
    if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] == (3,)):
        raise ValueError("give a list of pictures, even where it is one: [picture]")
    pictures = []
    for number, image in enumerate(images):
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim < 2 or image.shape[2:] not in ((), (3,)):
            raise ValueError(
                f"picture {number} is {image.dtype} {image.shape}; pictures are uint8, RGB (H, W, 3) or grey (H, W)"
            )
        if image.shape[0] * image.shape[1] > MAX_PIXELS:
            raise ValueError(
                f"picture {number} is {image.shape[1]}×{image.shape[0]}; the limit is {MAX_PIXELS:,} pixels: cut it up"
            )
        if min(image.shape[:2]) < 8:
            raise ValueError(
                f"picture {number} is {image.shape[1]}×{image.shape[0]}; each side needs 8 pixels"
            )
        pictures.append(np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image)
    if not pictures:
        raise ValueError("no pictures were given")
    return pictures


def _masks(masks: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """uint8 (H, W) {0, 1, 255 = ignored} each, of the size of its picture."""
    if len(masks) != len(images):
        raise ValueError(f"{len(images)} pictures and {len(masks)} masks: every picture needs one")
    found = []
    for number, (mask, image) in enumerate(zip(masks, images)):
        mask = np.asarray(mask)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask {number} is {mask.shape}, its picture {image.shape[:2]}")
        values = set(np.unique(mask).tolist())
        if mask.dtype != bool and not values <= {0, 1, 255}:
            raise ValueError(f"mask {number} holds other values than 0 and 1, or 0 and 255")
        if not mask.any():
            raise ValueError(f"mask {number} marks no pixel: there is nothing to learn from it")
        found.append(mask.astype(np.uint8) if {1, 255} <= values else (mask != 0).astype(np.uint8))
    return found
