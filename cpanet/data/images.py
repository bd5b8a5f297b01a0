"""Reading a picture: one function for training data, predictions and the Python API.

Pillow decodes, not OpenCV: it reads a header without decoding, and it reports a truncated file, where
OpenCV hands out a half-grey picture. Every picture becomes 8-bit RGB as it is shown:

- the EXIF orientation is applied, to pictures and to masks;
- CMYK is converted by Pillow's formula, without a colour profile;
- more than 8 bits a channel (integers or floats) are mapped linearly to 0–255 from a range of values: that of
  the whole data set, so that equal values stay equal in all its pictures.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Optional

import cv2
import numpy as np
from PIL import Image, ImageOps

from cpanet.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

MIN_SIDE = 8  # pixels; the test transform rounds sides down to multiples of this
MAX_PIXELS = 150_000_000  # of one picture, wherever it is read; Pillow's own limit for bombs is not far above
MAX_FILE_BYTES = 2**30
TRANSPARENT = "is partly transparent; save it without transparency"

# Pillow's modes of 8-bit grey, bilevel, palette, colour; each with or without transparency.
_PLAIN = ("L", "1", "P", "RGB", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_ORIENTATION = 0x0112  # of EXIF and of TIFF: 1 is stored as shown, 5 to 8 are stored on their side
# What becomes 0 and 255 in pictures with more than 8 bits.
ValueRange = Optional[tuple[float, float]]


class Refused(Exception):
    """A file that cannot be used: ``rule`` in two or three words, ``detail`` for the reader."""

    def __init__(self, rule: str, detail: str):
        super().__init__(detail)
        self.rule, self.detail = rule, detail


class Header(NamedTuple):
    """A picture's width and height as it is shown, and its EXIF orientation (1: stored as shown)."""

    width: int
    height: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def read_image(path: Path | str, value_range: ValueRange = None) -> np.ndarray:
    """The picture in a file, as the project reads it everywhere: uint8 RGB (H, W, 3), its EXIF orientation applied.

    ``value_range`` maps a picture of more than 8 bits to 0–255; without it the picture's own least and largest
    value do. For several pictures give all of them one range: see ``value_range_of``. Raises UserError.
    """
    path = Path(path)
    try:
        read_header(path)
        return decode_image(path.read_bytes(), value_range)
    except Refused as refused:
        raise UserError(f"{path} {refused.detail}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def value_range_of(paths: Iterable[Path]) -> ValueRange:
    """Least and largest value of the pictures with more than 8 bits; None where there are none.

    Files that cannot be read are left out: whoever reads them for good says why.
    """
    found = []
    for path in paths:
        with contextlib.suppress(Refused, OSError):
            read_header(path)
            found.append(range_of(decode_pixels(path.read_bytes())))
    return join_ranges(found)


def read_header(path: Path) -> Header:
    """Size and orientation of an image, from its header alone; ``Refused`` for what must not or cannot be decoded."""
    try:
        if not path.is_file():
            raise Refused("unreadable file", "is not a regular file (or a link that leads nowhere)")
        size = path.stat().st_size
        if size == 0:
            raise Refused("unreadable file", "is empty (0 bytes)")
        if size > MAX_FILE_BYTES:
            raise Refused("too large", f"has {size / 2**20:.0f} MiB; the limit is {MAX_FILE_BYTES >> 20} MiB")
        with path.open("rb") as file:
            return read_header_of(file)
    except OSError as error:
        raise Refused("unreadable file", f"cannot be read ({error.strerror or error})") from None


def read_header_of(file: BinaryIO) -> Header:
    """:func:`read_header` of an open file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                orientation = _orientation(image)
                width, height = image.size
                if orientation >= 5 and image.format != "TIFF":  # Pillow gives a TIFF's size as shown
                    width, height = height, width
    except Image.DecompressionBombError:
        raise Refused("too large", f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # whatever a decoder raises for a damaged header
        raise Refused("unreadable file", "is damaged, or no JPEG, PNG, BMP or TIFF image") from None
    if width * height > MAX_PIXELS:
        raise Refused("too large", f"is {width}×{height}; the limit is {MAX_PIXELS:,} pixels: cut it up")
    if min(width, height) < MIN_SIDE:
        raise Refused("too small", f"is {width}×{height}; each side needs at least {MIN_SIDE} pixels")
    return Header(width, height, orientation)


def decode_image(data: bytes, value_range: ValueRange = None) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a picture's file, by the rules above. Raises ``Refused``."""
    return to_rgb(decode_pixels(data), value_range)


def decode_pixels(data: bytes) -> np.ndarray:
    """A picture as it is shown: uint8 RGB (H, W, 3), or (H, W) or (H, W, 3) of another type where it has more bits."""
    image, deep = _open(data)
    if deep:
        return _deep_pixels(image, data)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode not in _PLAIN:
        raise Refused("unsupported image", f"is {image.mode}; save it as 8-bit grey or RGB")
    return np.array(_turned(image).convert("RGB"), np.uint8)


def range_of(pixels: np.ndarray) -> ValueRange:
    """Least and largest value of a picture with more than 8 bits, None for one of 8 bits."""
    return None if pixels.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))


def join_ranges(ranges: Iterable[ValueRange]) -> ValueRange:
    """The range of several pictures together; None where none has more than 8 bits."""
    there = [r for r in ranges if r is not None]
    return (min(low for low, _ in there), max(high for _, high in there)) if there else None


def to_rgb(pixels: np.ndarray, value_range: ValueRange = None) -> np.ndarray:
    """uint8 RGB (H, W, 3) of what ``decode_pixels`` gave; values outside ``value_range`` become 0 or 255."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = value_range or range_of(pixels) or (0.0, 0.0)
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-12))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)


def decode_mask(data: bytes) -> np.ndarray:
    """The values of a mask's file as they are shown: uint8 (H, W). Raises ``Refused``.

    Grey values; of a palette in colours its indices (of one in greys what is shown). A mask of 16 bits is read where
    its values are at most 255, or 0 and 65535 alone, which are 0 and 255. Its EXIF orientation is applied.
    """
    image, deep = _open(data)
    if deep:
        return _narrow(_deep_pixels(image, data))
    image = _turned(image)
    if image.mode == "P" and not _is_grey(np.array(image.convert("RGB"), np.uint8)):
        return np.array(image, np.uint8)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode in ("L", "1"):
        return np.array(image.convert("L"), np.uint8)
    if image.mode not in _PLAIN:
        raise Refused("unsupported image", f"is {image.mode}; save it as 8-bit grey")
    rgb = np.array(image.convert("RGB"), np.uint8)
    if not _is_grey(rgb):
        raise Refused("unexpected mask values", "is in colour; save it as grey, defect 255, the rest 0")
    return np.ascontiguousarray(rgb[..., 0])


def _is_grey(rgb: np.ndarray) -> bool:
    return bool((rgb == rgb[..., :1]).all())


def _narrow(values: np.ndarray) -> np.ndarray:
    """uint8 of a mask with 16 bits."""
    if values.ndim == 3 and _is_grey(values):
        values = values[..., 0]
    if values.ndim == 2:
        if np.all((values == 0) | (values == 65535)):
            return np.where(values > 0, 255, 0).astype(np.uint8)
        if values.min() >= 0 and values.max() <= 255 and not np.any(values % 1):
            return np.ascontiguousarray(values.astype(np.uint8))
    what = "has more than 8 bits and values other than whole ones to 255; save it with 8"
    raise Refused("unexpected mask values", what)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that stands before the pixels: no decoder has to run for it."""
    found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _open(data: bytes) -> tuple[Image.Image, bool]:
    """The decoded image, not turned yet, and whether it has more than 8 bits a channel."""
    try:
        with warnings.catch_warnings():  # of Pillow about large pictures: the limit is the header's matter
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            frames = getattr(image, "n_frames", 1)
            deep = _bits_per_channel(image, data) > 8
            image.load()
    except Exception as error:  # truncated or damaged; Pillow has many ways to say it
        words = " ".join(str(error).split())[:80] or type(error).__name__
        raise Refused("unreadable file", f"is truncated or damaged ({words})") from None
    if frames > 1 and image.format != "MPO":
        raise Refused("unsupported image", f"holds {frames} pictures; save the one that is meant")
    return image, deep


def _turned(image: Image.Image) -> Image.Image:
    """As it is shown; a TIFF has been turned by Pillow already."""
    return image if image.format == "TIFF" else ImageOps.exif_transpose(image)


def _deep_pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """(H, W) or (H, W, 3) of an image with more than 8 bits a channel, as it is shown."""
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
    else:  # Pillow cuts colour down to 8 bits; it has seen that the file is whole
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            what = "has more than 8 bits a channel in a format that cannot be read"
            raise Refused("unsupported image", what)
        if pixels.ndim == 3:
            if pixels.shape[2] == 4 and pixels[..., 3].min() != np.iinfo(pixels.dtype).max:
                raise Refused("unsupported image", TRANSPARENT)
            pixels = pixels[..., 2::-1]
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise Refused("unsupported image", "holds values that are not finite")
    turn = _orientation(image) if image.format != "TIFF" else 1
    pixels = pixels[:: -1 if turn in (3, 4, 6, 7) else 1, :: -1 if turn in (2, 3, 7, 8) else 1]
    pixels = pixels.swapaxes(0, 1) if turn >= 5 else pixels
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("=")))


def _bits_per_channel(image: Image.Image, data: bytes) -> int:
    """Pillow cuts 16-bit colour down to 8 silently; only the header tells."""
    if image.format == "PNG":
        return data[24]  # IHDR: signature 8, length 4, type 4, width 4, height 4, then the bit depth
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (1,))  # BitsPerSample
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 16 if image.mode.startswith(("I", "F")) else 8


def _without_alpha(image: Image.Image) -> Image.Image:
    """Drop a transparency channel that is opaque everywhere; refuse one that hides something."""
    rgba = image.convert("RGBA")
    if np.asarray(rgba)[..., 3].min() != 255:
        raise Refused("unsupported image", TRANSPARENT)
    opaque = rgba.convert("RGB")
    opaque.format, opaque.info = image.format, image.info  # its orientation stands there
    return opaque
