"""Training episodes that only their support can settle: pseudo-classes, and changes that query and support share.

With few training classes a network learns to mark whatever looks like a defect, and stops looking at the support. A
*pseudo-class* is a style drawn once an episode and painted into its query and its supports at random places: the masks
are those places, and the real defects in the pictures count as background. Everything random comes from the episode's own
generator, after what the training transform has drawn, so that batches depend on neither workers nor on a run's restarts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from cpanet.data.transforms import IGNORE, MEAN, STD
from cpanet.recipe.episodes import EpisodeTransform
from cpanet.section import Probability

FILLS = ("offset", "noise", "stripes", "patch")
SMALLEST = 0.03  # extent of a painted region, as a part of the image's side
TRIES = 8  # at a place where something of the region is on the picture


@dataclass(frozen=True)
class Style:
    """Appearance of a pseudo-class; lengths are parts of the image's side, amplitudes grey levels."""

    family: str
    fill: str
    sign: float
    size: float
    softness: float
    amplitude: float
    angle: float
    wavelength: float
    count: int


def draw_style(rng: np.random.Generator, largest: float) -> Style:
    """A style; size (up to ``largest``) and amplitude are drawn evenly on a logarithmic scale."""
    return Style(
        family=list(FAMILIES)[rng.integers(len(FAMILIES))],
        fill=FILLS[rng.integers(len(FILLS))],
        sign=1.0 if rng.random() < 0.5 else -1.0,
        size=float(np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))),
        softness=float(rng.uniform(0.0, 0.012)),
        amplitude=float(np.exp(rng.uniform(np.log(18.0), np.log(90.0)))),
        angle=float(rng.uniform(0.0, np.pi)),
        wavelength=float(rng.uniform(0.02, 0.08)),
        count=int(rng.integers(1, 4)),
    )


def draw_region(style: Style, rng: np.random.Generator, size: int) -> np.ndarray:
    """One place of a style, as opacity float32 (S, S) in [0, 1]: what is above one half is its mask."""
    canvas = np.zeros((size, size), np.uint8)
    FAMILIES[style.family](canvas, style, style.size * size, rng)
    opacity = canvas.astype(np.float32)
    if style.softness * size >= 0.3:
        opacity = cv2.GaussianBlur(opacity, (0, 0), style.softness * size)
        opacity /= max(float(opacity.max()), 1e-6)
    return opacity


def _blobs(canvas: np.ndarray, style: Style, extent: float, rng: np.random.Generator) -> None:
    """Ellipses with an uneven outline."""
    for _ in range(style.count):
        centre = rng.uniform(0.05, 0.95, 2) * len(canvas)
        axes = 0.5 * extent * rng.uniform(0.6, 1.3, 2)
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = 1.0 + 0.25 * np.convolve(np.tile(rng.standard_normal(24), 2), np.ones(3) / 3)[12:36]
        points = np.stack([np.cos(turn) * axes[0], np.sin(turn) * axes[1]], axis=1) * radius[:, None]
        points = centre + points @ _rotation(rng.uniform(0, np.pi))
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)


def _lines(canvas: np.ndarray, style: Style, extent: float, rng: np.random.Generator) -> None:
    """Strokes that bend a little, longer than thick, near the style's direction."""
    thickness = max(1, round(0.12 * extent))
    for _ in range(style.count):
        angle = style.angle + rng.normal(0.0, 0.2)
        length = extent * rng.uniform(1.5, 3.5)
        along = np.linspace(-0.5, 0.5, 9) * length
        across = np.cumsum(rng.standard_normal(9)) * 0.03 * length
        points = np.stack([along, across - across.mean()], axis=1) @ _rotation(angle)
        points += rng.uniform(0.15, 0.85, 2) * len(canvas)
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, 1, thickness)


def _spots(canvas: np.ndarray, style: Style, extent: float, rng: np.random.Generator) -> None:
    """A group of small spots."""
    for _ in range(style.count):
        centre = rng.uniform(0.1, 0.9, 2) * len(canvas)
        for _ in range(int(rng.integers(3, 12))):
            place = centre + rng.standard_normal(2) * 0.5 * extent
            radius = max(1, round(0.08 * extent * rng.uniform(0.6, 1.6)))
            cv2.circle(canvas, (round(place[0]), round(place[1])), radius, 1, -1)


FAMILIES = {"blob": _blobs, "line": _lines, "spots": _spots}


def _rotation(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def paint(
    image: np.ndarray, opacity: np.ndarray, style: Style, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """``image`` float32 (S, S, 3) in grey levels 0–255 with a style painted in; ``patch`` takes from ``other``."""
    size = len(image)
    if style.fill == "patch":
        top, left = (int(rng.integers(side - size + 1)) if side > size else 0 for side in other.shape[:2])
        piece = cv2.resize(other[top : top + size, left : left + size].astype(np.float32), (size, size))
        shift = image.mean() + 0.5 * style.sign * style.amplitude - piece.mean()
        painted = image + opacity[:, :, None] * (piece + shift - image)
    else:
        painted = image + (opacity * _texture(style, size, rng) * style.amplitude)[:, :, None]
    return np.clip(painted, 0.0, 255.0)


def _texture(style: Style, size: int, rng: np.random.Generator) -> np.ndarray:
    """Texture that is added where the opacity is 1, in units of the amplitude: float32 (S, S)."""
    if style.fill == "offset":
        return np.full((size, size), style.sign, np.float32)
    if style.fill == "noise":
        noise = rng.standard_normal((size, size)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), max(0.3, style.wavelength * size * 0.2))
        return noise / max(float(noise.std()), 1e-6) + 0.5 * style.sign
    y, x = np.mgrid[:size, :size].astype(np.float32)
    wave = (x * np.cos(style.angle) + y * np.sin(style.angle)) * (2 * np.pi / (style.wavelength * size))
    return np.sin(wave + rng.uniform(0, 2 * np.pi)).astype(np.float32) + 0.5 * style.sign


class EpisodeChanges(EpisodeTransform):
    """Random changes of training episodes, each with its probability; the defaults change nothing.

    invert: query and supports are inverted in brightness together. photometric: contrast, gamma and brightness change in
    all of them alike. pseudo: the episode becomes a pseudo-class. distractor: a pseudo-class has a second style beside it,
    which is background. negative: the supports show another class, and the query's target is empty.

    largest: extent of the largest regions of a pseudo-class, as a part of the picture's side.
    """

    invert: Probability = 0.0
    photometric: Probability = 0.0
    pseudo: Probability = 0.0
    distractor: Probability = 0.0
    negative: Probability = 0.0
    largest: Annotated[float, Field(ge=SMALLEST, le=2)] = 0.28

    def supports(
        self, indices: Sequence[int], labels: Sequence[int], pool: Sequence[int], rng: np.random.Generator
    ) -> Sequence[int]:
        """Of another training class, where the episode becomes a negative one."""
        own, shot = indices[1:], len(indices) - 1
        if not self.negative or rng.random() >= self.negative:
            return own
        classes = sorted({labels[i] for i in pool} - {labels[indices[0]]})
        if not classes:
            return own
        chosen = classes[int(rng.integers(len(classes)))]
        members = [i for i in pool if labels[i] == chosen]
        return [int(i) for i in rng.choice(members, size=shot, replace=len(members) < shot)]

    def change(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        pictures: Sequence[np.ndarray],
        pool: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        """Paint a pseudo-class, change contrast and brightness, invert; padding stays padding."""
        chances = self.invert, self.photometric, self.pseudo, self.distractor
        invert, photometric, pseudo, distractor = rng.random(4) < chances
        if not (pseudo or photometric or invert):
            return
        grey = [image.transpose(1, 2, 0) * STD + MEAN for image in images]
        if pseudo:
            other = pictures[pool[int(rng.integers(len(pool)))]]
            _pseudo_class(grey, masks, other, rng, bool(distractor), self.largest)
        if photometric:
            contrast, gamma = rng.uniform(0.7, 1.3), np.exp(rng.uniform(-0.4, 0.4))
            brightness = rng.uniform(-20, 20)
            grey = [_photometric(picture, contrast, gamma, brightness) for picture in grey]
        if invert:
            grey = [255.0 - picture for picture in grey]
        for image, mask, picture in zip(images, masks, grey):
            inside = mask != IGNORE
            image[:, inside] = ((picture - MEAN) / STD).transpose(2, 0, 1)[:, inside]


PLAIN = EpisodeChanges()


def _pseudo_class(
    grey: list[np.ndarray],
    masks: Sequence[np.ndarray],
    other: np.ndarray,
    rng: np.random.Generator,
    distractor: bool,
    largest: float,
) -> None:
    """Paint one style into all pictures of an episode; its places become the masks."""
    style = draw_style(rng, largest)
    second = draw_style(rng, largest) if distractor else None
    for n, mask in enumerate(masks):
        inside = mask != IGNORE
        if second is not None:
            grey[n] = paint(grey[n], draw_region(second, rng, len(mask)), second, other, rng)
        for _ in range(TRIES):
            opacity = draw_region(style, rng, len(mask))
            if np.any((opacity > 0.5) & inside):
                break
        grey[n] = paint(grey[n], opacity, style, other, rng)
        mask[inside] = (opacity > 0.5)[inside]


def _photometric(picture: np.ndarray, contrast: float, gamma: float, brightness: float) -> np.ndarray:
    """Contrast about the picture's mean, then gamma, then brightness; grey levels 0–255."""
    mean = picture.mean()
    changed = np.clip(mean + contrast * (picture - mean), 0.0, 255.0)
    return np.clip(255.0 * (changed / 255.0) ** gamma + brightness, 0.0, 255.0)
