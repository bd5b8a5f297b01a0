"""From what the page hands over to arrays, and from arrays to what it shows. No Gradio, no Jittor."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cpanet.data.check import MaskRule, binarise
from cpanet.data.images import IMAGE_SUFFIXES, Refused, ValueRange, decode_image, decode_mask, read_header
from cpanet.errors import UserError
from cpanet.predict.outputs import sixteen_bits

PAINT = (235, 60, 60, 153)  # RGBA of a painted or loaded mask
FROM_DATA = MaskRule(None, lenient=True)


def read_picture(path: str | Path, value_range: ValueRange = None) -> np.ndarray:
    """An uploaded picture, uint8 RGB (H, W, 3). Raises UserError for what is none, damaged, or too large.

    ``value_range``: of pictures with more than 8 bits; None: the picture's own.
    """
    path = Path(path)
    try:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise Refused("unsupported image", f"is none of {', '.join(IMAGE_SUFFIXES)}")
        read_header(path)
        return decode_image(path.read_bytes(), value_range)
    except Refused as refused:
        raise UserError(f"{path.name} {refused.detail}.") from None


def read_mask(path: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """An uploaded mask of a picture of this ``shape``, bool (H, W); 255 is defect (1, where it holds 0 and 1)."""
    path = Path(path)
    try:
        read_header(path)
        mask, _ = binarise(decode_mask(path.read_bytes()), FROM_DATA)
    except Refused as refused:
        raise UserError(f"{path.name} {refused.detail}.") from None
    if mask.shape != tuple(shape):
        sizes = (f"{width}×{height}" for height, width in (mask.shape, shape))
        raise UserError(
            f"{path.name} is {next(sizes)}, the support {next(sizes)}. Load the mask of this picture."
        )
    return mask == 1


def painted(value: Mapping[str, Any] | None, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels painted on any layer of Gradio's image editor, bool (H, W), of a picture of this ``shape``."""
    mask = np.zeros(shape[:2], bool)
    for layer in (value or {}).get("layers") or ():
        strokes = (np.asarray(layer)[..., 3] > PAINT[3] // 2).astype(np.uint8)  # a brush is soft at its rim
        if strokes.shape != mask.shape:  # the editor's canvas, which shows the whole picture
            strokes = cv2.resize(strokes, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
        mask |= strokes > 0
    return mask


def to_editor(picture: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """The value of Gradio's image editor that shows ``picture`` with ``mask`` in the paint's colour.

    The mask is drawn into the background, where no stroke can discard it, and no layer can lie beside the picture.
    """
    shown = picture.copy()
    part = PAINT[3] / 255
    shown[mask] = np.rint((1 - part) * picture[mask] + part * np.array(PAINT[:3])).astype(np.uint8)
    return {"background": shown, "layers": [], "composite": None}


def grey(probability: np.ndarray) -> np.ndarray:
    """Probabilities 0–1 (H, W) as grey uint8 (H, W)."""
    return np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)


def coloured(values: np.ndarray) -> np.ndarray:
    """A map (H, W) from its lowest value (dark blue) to its highest (yellow), uint8 RGB (H, W, 3)."""
    low, high = float(values.min()), float(values.max())
    scaled = np.rint(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def archive(masks: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> bytes:
    """A ZIP file of name, mask bool (H, W) and probability (H, W) of each picture.

    ``NAME.png`` is the mask, 0 or 255; ``probability/NAME.png`` has 16 bits, 65535 being 1.
    """
    stream, used = io.BytesIO(), set()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, mask, probability in masks:
            stem, number = Path(name).stem, 1
            while stem in used:
                number += 1
                stem = f"{Path(name).stem}_{number}"
            used.add(stem)
            file.writestr(f"{stem}.png", _png(mask.astype(np.uint8) * 255))
            file.writestr(f"probability/{stem}.png", _png(sixteen_bits(probability)))
    return stream.getvalue()


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()
