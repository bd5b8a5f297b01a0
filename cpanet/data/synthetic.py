"""The embedded data set: procedural strip steel, twelve kinds of defect, drawn once into the cache.

Real enough to show that the method learns, small enough to be drawn in seconds: rolled texture, uneven
light, and defects that differ from it in structure rather than only in brightness, which is drawn anew for
every image. Everything is a function of the seed. The mathematics is float64 and rounded to 8 bits, files are
written without compression: the same bytes on any machine.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Callable

import numpy as np

from cpanet.errors import UserError
from cpanet.files import folder_beside
from cpanet.runtime import user_cache

SIZE = 200
PER_CLASS = 25
SEED = 12
VERSION = 3  # of the pictures: counted up whenever they change, so that caches are not mixed
FINGERPRINT = "2c1c6b0d47395baa1bc6e714aacdebf98901fbef4a55526dc0363bbf54b7acf9"

Field = np.ndarray  # float64 (SIZE, SIZE)
Defect = tuple[Field, np.ndarray]  # the picture with a defect, and where it is (bool)
Random = np.random.Generator

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


# --- building blocks ---------------------------------------------------------------------------------------


@cache
def _blur_matrix(sigma: float) -> Field:
    """Gaussian blur along one axis; edges renormalised."""
    distance = np.arange(SIZE)[:, None] - np.arange(SIZE)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def blur(field: Field, sigma_y: float, sigma_x: float | None = None) -> Field:
    """Gaussian blur; sigmas in pixels."""
    return _blur_matrix(sigma_y) @ field @ _blur_matrix(sigma_x or sigma_y).T


def noise(rng: Random, sigma_y: float, sigma_x: float | None = None) -> Field:
    """Random field of unit deviation, as smooth as the sigmas say."""
    field = blur(rng.standard_normal((SIZE, SIZE)), sigma_y, sigma_x)
    return (field - field.mean()) / field.std()


def soft(field: Field, width: float = 1.0) -> Field:
    """0 … 1 ramp around 0, ``width`` wide: edges without staircase."""
    return np.clip(field / width + 0.5, 0, 1)


def ellipse(cy: float, cx: float, ry: float, rx: float, angle: float = 0.0) -> Field:
    """Signed distance-like field, in pixels: positive inside, 0 on the outline."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = c * (_X - cx) + s * (_Y - cy), -s * (_X - cx) + c * (_Y - cy)
    return (1 - np.sqrt((u / rx) ** 2 + (v / ry) ** 2)) * min(rx, ry)


def blob(rng: Random, cy: float, cx: float, ry: float, rx: float, wobble: float, grain: float) -> Field:
    """An ellipse with an irregular outline: ``wobble`` pixels of noise, ``grain`` pixels coarse."""
    return ellipse(cy, cx, ry, rx, rng.uniform(-0.6, 0.6)) + wobble * noise(rng, grain)


def somewhere(rng: Random, margin: float) -> tuple[float, float]:
    """A centre at least ``margin`` from the edges."""
    y, x = rng.uniform(margin, SIZE - margin, 2)
    return float(y), float(x)


def sign(rng: Random) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def steel(rng: Random) -> Field:
    """Rolled steel without a defect: uneven light, faint stains, rolling lines; roughly 0 … 255."""
    level, contrast = rng.uniform(90, 165), rng.uniform(0.7, 1.4)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * (_X - SIZE / 2) + np.sin(angle) * (_Y - SIZE / 2)) / SIZE
    light = (
        rng.uniform(10, 50) * slope
        + rng.uniform(3, 9) * noise(rng, 45)
        + rng.uniform(1, 5) * noise(rng, 9, 16)
    )
    lines = rng.uniform(3, 7) * noise(rng, 0.8, 45) + rng.uniform(2, 5) * noise(rng, 2.5, 70)
    return level + light + contrast * lines


def photograph(rng: Random, base: Field, picture: Field) -> np.ndarray:
    """uint8 image: the defect more or less pronounced, all slightly blurred, and the camera's grain."""
    picture = blur(
        base + rng.uniform(0.65, 1.15) * (picture - base), float(rng.choice([0.4, 0.55, 0.7, 0.85]))
    )
    picture = picture + rng.uniform(3, 6) * noise(rng, 0.5, 0.8)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


# --- the twelve kinds --------------------------------------------------------------------------------------


def patch(rng: Random, base: Field) -> Defect:
    """Large flakes of another reflectance, mottled, with a ragged outline."""
    area = np.full((SIZE, SIZE), -SIZE, np.float64)
    for _ in range(rng.integers(1, 4)):
        ry, rx = rng.uniform(22, 42, 2)
        area = np.maximum(area, blob(rng, *somewhere(rng, 32), ry, rx, 5, 5))
    inside = 38 * sign(rng) + 9 * noise(rng, 4)
    return base + soft(area, 3) * inside, area > 0


def scratch(rng: Random, base: Field) -> Defect:
    """Long bright grooves with a dark flank, across the rolling direction."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    angle, (cy, cx) = rng.uniform(-0.5, 0.5), somewhere(rng, 70)
    for _ in range(rng.integers(2, 5)):
        width, half = rng.uniform(3.5, 6), rng.uniform(55, 95)
        tilt = angle + rng.uniform(-0.08, 0.08)
        oy, ox = cy + rng.uniform(-25, 25), cx + rng.uniform(-45, 45)
        along = np.cos(tilt) * (_Y - oy) + np.sin(tilt) * (_X - ox)
        bend = rng.uniform(-1, 1) * along**2 / 900
        across = -np.sin(tilt) * (_Y - oy) + np.cos(tilt) * (_X - ox) + bend
        taper = width * np.clip((half - np.abs(along)) / 25, -1, 1)
        groove = soft(taper - np.abs(across), 1.5)
        picture = picture + groove * (62 * soft(-across, 2) - 45 * soft(across, 2))
        mask |= taper - np.abs(across) > 0
    return picture, mask


def inclusion(rng: Random, base: Field) -> Defect:
    """Dark ragged streaks along the rolling direction."""
    area = np.full((SIZE, SIZE), -SIZE, np.float64)
    for _ in range(rng.integers(2, 5)):
        cy, cx = somewhere(rng, 35)
        streak = ellipse(cy, cx, rng.uniform(7, 13), rng.uniform(35, 75)) + 3.0 * noise(rng, 1.5, 6)
        area = np.maximum(area, streak)
    inside = -42 + 18 * noise(rng, 1.0, 5)
    return base + soft(area, 2) * inside, area > 0


def pitted(rng: Random, base: Field) -> Defect:
    """A field of many small pits, each dark with a lit edge."""
    cy, cx = somewhere(rng, 32)
    area = blob(rng, cy, cx, rng.uniform(28, 46), rng.uniform(34, 56), 7, 9)
    relief = noise(rng, 2.2)
    pits = soft(relief - 0.7, 0.5)
    lit = np.roll(pits, 2, axis=0) - pits
    return base + soft(area, 6) * (-70 * pits + 30 * np.clip(lit, 0, 1)), area > 0


def oil_spot(rng: Random, base: Field) -> Defect:
    """Round dark drops, smooth as glass, with a soft highlight."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(2, 5)):
        r = rng.uniform(15, 30)
        cy, cx = somewhere(rng, r + 4)
        drop = blob(rng, cy, cx, r, r * rng.uniform(0.85, 1.3), 1.5, 8)
        film = blur(base, 9) - 48 + 55 * soft(ellipse(cy - r / 3, cx - r / 3, r / 3, r / 3), r / 2)
        alpha = soft(drop, 2)
        picture = picture * (1 - alpha) + film * alpha
        mask |= drop > 0
    return picture, mask


def water_spot(rng: Random, base: Field) -> Defect:
    """Dried stains: nested wavy rims around an almost untouched middle."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(1, 3)):
        area = blob(rng, *somewhere(rng, 34), rng.uniform(26, 42), rng.uniform(26, 46), 5, 11)
        rims = sum(
            np.exp(-0.5 * ((area - depth) / 1.6) ** 2) * gain for depth, gain in ((2, 60), (9, 32), (16, 20))
        )
        picture = picture + np.asarray(rims) + 10 * soft(area, 2)
        mask |= area > 0
    return picture, mask


def rolled_in_scale(rng: Random, base: Field) -> Defect:
    """Fish-scale crusts pressed in, drawn out along the rolling direction."""
    cy, cx = somewhere(rng, 32)
    area = blob(rng, cy, cx, rng.uniform(24, 38), rng.uniform(48, 75), 6, 6)
    relief = noise(rng, 2.2, 7)
    scales = np.abs(np.mod(relief * 1.6, 2) - 1)
    return base + soft(area, 4) * (95 * (scales - 0.5)), area > 0


def crack_network(rng: Random, base: Field) -> Defect:
    """A net of dark cracks between polygonal islands."""
    cy, cx = somewhere(rng, 32)
    area = blob(rng, cy, cx, rng.uniform(32, 52), rng.uniform(32, 52), 6, 8)
    step = rng.uniform(15, 20)
    grid = np.arange(-step, SIZE + step, step)
    seeds = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    seeds = seeds + rng.uniform(-0.45, 0.45, seeds.shape) * step
    warp_y, warp_x = _Y + 2.5 * noise(rng, 4), _X + 2.5 * noise(rng, 4)
    first = second = np.full((SIZE, SIZE), np.inf)
    for y, x in seeds:
        distance = (warp_y - y) ** 2 + (warp_x - x) ** 2
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    cracks = soft(3.2 - (np.sqrt(second) - np.sqrt(first)), 2.0)
    return base - soft(area, 3) * 75 * cracks, area > 0


def roll_printing(rng: Random, base: Field) -> Defect:
    """The same mark again and again, in the rhythm of a damaged roll; each image has a mark of its own."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    step, top, left = rng.uniform(40, 54), *rng.uniform(0, 40, 2)
    radius, depth = rng.uniform(9, 13), 55 * sign(rng)
    lobes, lobed, turn = rng.integers(2, 6), rng.uniform(0.15, 0.4), rng.uniform(0, 2 * np.pi)
    rows = rng.integers(1, 4)
    first = rng.integers(0, 5 - rows)
    for row in range(first, first + rows):
        for column in range(5):
            cy, cx = top + row * step, left + column * step + (row % 2) * step / 2
            outline = radius * (1 + lobed * np.cos(lobes * np.arctan2(_Y - cy, _X - cx) + turn))
            mark = outline - np.sqrt((_Y - cy) ** 2 + (_X - cx) ** 2)
            picture = picture + rng.uniform(0.7, 1) * depth * (soft(mark, 2) - 1.5 * soft(mark - 4, 2))
            mask |= mark > 0
    return picture, mask


def blister(rng: Random, base: Field) -> Defect:
    """Raised bubbles, lit from one side and in shade on the other."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 6)):
        r = rng.uniform(14, 25)
        cy, cx = somewhere(rng, r)
        area = ellipse(cy, cx, r, r * rng.uniform(1, 1.4), rng.uniform(-0.5, 0.5))
        lean = (np.cos(light) * (_X - cx) + np.sin(light) * (_Y - cy)) / r
        picture = picture + soft(area, 3) * 75 * lean
        mask |= area > 0
    return picture, mask


def edge_fray(rng: Random, base: Field) -> Defect:
    """The torn edge of the strip: a jagged border, splinters, dark beyond."""
    inward = [_Y, SIZE - 1 - _Y, _X, SIZE - 1 - _X][rng.integers(4)]
    depth = rng.uniform(24, 46)
    jagged = depth + 8 * noise(rng, 5) + 3 * noise(rng, 2) - inward
    splinters = np.abs(np.mod(noise(rng, 1.5, 3) * 1.3, 2) - 1)
    beyond = soft(jagged - 0.55 * depth, 4)
    torn = base + 70 * (splinters - 0.6)
    inside = torn * (1 - beyond) + (rng.uniform(15, 45) + 5 * noise(rng, 3)) * beyond
    alpha = soft(jagged, 2)
    return base * (1 - alpha) + inside * alpha, jagged > 0


def punching(rng: Random, base: Field) -> Defect:
    """Crescents struck by a tool: sharp, dark, with a bright burr."""
    picture, mask = base.copy(), np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(2, 5)):
        r, turn = rng.uniform(18, 32), rng.uniform(0, 2 * np.pi)
        cy, cx = somewhere(rng, r + 2)
        shift = r * rng.uniform(0.45, 0.7)
        moon = np.minimum(
            ellipse(cy, cx, r, r),
            -ellipse(cy + shift * np.sin(turn), cx + shift * np.cos(turn), r * 0.8, r * 0.8),
        )
        picture = picture * (1 - soft(moon, 1.5)) + soft(moon, 1.5) * (0.3 * base + 4 * noise(rng, 2))
        picture = picture + 75 * np.exp(-0.5 * ((moon - 0.5) / 1.2) ** 2)
        mask |= moon > -1
    return picture, mask


KINDS: dict[str, Callable[[Random, Field], Defect]] = {
    kind.__name__: kind
    for kind in (
        patch,
        scratch,
        oil_spot,
        crack_network,
        inclusion,
        blister,
        pitted,
        roll_printing,
        water_spot,
        rolled_in_scale,
        punching,
        edge_fray,
    )
}
CLASSES = tuple(KINDS)


def draw(kind: str, number: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Image ``number`` of a class: uint8 (200, 200) and its mask, uint8 {0, 1}.

    Drawn again where the defect covers less than 4 % or more than 40 % of the picture.
    """
    for attempt in range(100):
        rng = np.random.default_rng([seed, CLASSES.index(kind), number, attempt])
        base = steel(rng)
        picture, mask = KINDS[kind](rng, base)
        if 0.04 <= mask.mean() <= 0.40:
            break
    return photograph(rng, base, picture), mask.astype(np.uint8)


# --- files -------------------------------------------------------------------------------------------------


def png(image: np.ndarray, bits: int = 8) -> bytes:
    """A grey PNG, stored rather than compressed: zlib's output differs between versions, this does not.

    ``image`` uint8 (H, W); ``bits=1`` writes 0 and not 0 with 1 bit a pixel.
    """
    height, width = image.shape
    rows = np.packbits(image > 0, axis=1) if bits == 1 else image
    raw = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()  # a filter byte before each row
    blocks = [raw[i : i + 65535] for i in range(0, len(raw), 65535)]
    stored = b"".join(
        struct.pack("<BHH", i == len(blocks) - 1, len(b), len(b) ^ 0xFFFF) + b for i, b in enumerate(blocks)
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG, with its length and check sum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write(root: Path) -> None:
    """Draw the whole set into ``root``, in the layout of FSSD-12."""
    for kind in CLASSES:
        images, masks = root / kind / "Images", root / kind / "GT"
        images.mkdir(parents=True)
        masks.mkdir()
        for number in range(PER_CLASS):
            image, mask = draw(kind, number)
            (images / f"{kind}_{number + 1}.png").write_bytes(png(image))
            (masks / f"{kind}_{number + 1}.png").write_bytes(png(mask, bits=1))
    folds = "".join(f"  - [{', '.join(CLASSES[f : f + 4])}]\n" for f in range(0, len(CLASSES), 4))
    text = (
        "# Procedural strip steel, drawn by cpanet.data.synthetic.\n"
        f"name: embedded\nclasses: [{', '.join(CLASSES)}]\nfolds:\n{folds}"
    )
    (root / "dataset.yaml").write_text(text, "utf-8")


def ensure(cache: Path | None = None, again: bool = False) -> Path:
    """Folder of the embedded set below ``cache``, drawn there if it is not yet, or ``again``.

    It appears only when it is whole, so several processes may do this at once. Raises UserError where it cannot be written.
    """
    root = (Path(cache) if cache is not None else user_cache()) / f"embedded-v{VERSION}"
    if root.is_dir() and not again:
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(root) as work:
            write(work / "new")
            if again:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(root, work / "old")
            try:
                os.rename(work / "new", root)
            except OSError:
                if not root.is_dir():  # otherwise another process was quicker, with the same pictures
                    raise
    except OSError as error:
        raise UserError(
            f"The embedded data set cannot be written to {root}: {error.strerror or error}. "
            "Make room there, or let that folder be written."
        ) from None
    return root
