"""Image files: read by what their header says, refused with the reason where they are not what is needed.

Pillow decodes, not OpenCV: it reads a header without decoding, and it reports a truncated file, where
OpenCV hands out a half-grey picture. EXIF orientation is ignored: masks carry none, and both must agree.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MASK_SUFFIXES = (".png",)

MIN_SIDE = 8  # pixels; the test transform rounds sides down to multiples of this
MAX_PIXELS = 25_000_000  # of one image; decoded RGB and mask take 4 bytes a pixel
MAX_FILE_BYTES = 256 * 2**20

# What Pillow calls 8-bit grey, bilevel, palette, colour; each with or without transparency.
_PLAIN = ("L", "1", "P", "RGB")
_WITH_ALPHA = ("LA", "PA", "RGBA")


class Refused(Exception):
    """A file that cannot be used: ``rule`` in two or three words, ``detail`` for the reader."""

    def __init__(self, rule: str, detail: str):
        super().__init__(detail)
        self.rule, self.detail = rule, detail


class Header(NamedTuple):
    width: int
    height: int


def read_header(path: Path) -> Header:
    """Size of an image, from its header alone; ``Refused`` for what must not or cannot be decoded."""
    if not path.is_file():
        raise Refused("unreadable file", "is not a regular file (or a link that leads nowhere)")
    size = _file_size(path)
    if size == 0:
        raise Refused("unreadable file", "is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise Refused("too large", f"has {size / 2**20:.0f} MiB; the limit is {MAX_FILE_BYTES >> 20} MiB")
    try:
        with path.open("rb") as file:
            return read_header_of(file)
    except OSError as error:
        raise Refused("unreadable file", f"cannot be read ({error.strerror or error})") from None


def read_header_of(file: BinaryIO) -> Header:
    """``read_header`` for an open file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise Refused("too large", f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # whatever a decoder raises for a damaged header
        raise Refused("unreadable file", "is damaged, or no JPEG, PNG, BMP or TIFF image") from None
    if width * height > MAX_PIXELS:
        raise Refused("too large", f"is {width}×{height}; the limit is {MAX_PIXELS:,} pixels: cut it up")
    if min(width, height) < MIN_SIDE:
        raise Refused("too small", f"is {width}×{height}; each side needs at least {MIN_SIDE} pixels")
    return Header(width, height)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Refused("unreadable file", f"cannot be read ({error.strerror})") from None


def _open(data: bytes) -> Image.Image:
    """Fully decoded image in one of the modes above, transparency gone."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
        sixteen_bits = _bits_per_channel(image, data) > 8
        image.load()
    except Exception as error:  # truncated or damaged; Pillow has many ways to say it
        raise Refused("unreadable file", f"is truncated or damaged ({_first_words(error)})") from None
    if frames > 1 and image.format != "MPO":
        raise Refused("unsupported image", f"holds {frames} pictures; save the one that is meant")
    if sixteen_bits:
        raise Refused("unsupported image", "has 16 bits or more per channel; save it with 8")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = _without_alpha(image)
    if image.mode not in _PLAIN:
        raise Refused("unsupported image", f"is {image.mode}; save it as 8-bit grey or RGB")
    return image


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
        raise Refused("unsupported image", "is partly transparent; save it without transparency")
    return rgba.convert("RGB")


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def decode_image(data: bytes) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a grey, palette or colour image."""
    return np.array(_open(data).convert("RGB"), np.uint8)


def decode_grey(data: bytes) -> np.ndarray:
    """uint8 (H, W) of a mask; a palette or colour mask is accepted where it is grey all over."""
    image = _open(data)
    if image.mode in ("L", "1"):
        return np.array(image.convert("L"), np.uint8)
    rgb = np.array(image.convert("RGB"), np.uint8)
    if (rgb != rgb[..., :1]).any():
        raise Refused("unexpected mask values", "is in colour; save it as grey, defect 255, the rest 0")
    return np.ascontiguousarray(rgb[..., 0])
