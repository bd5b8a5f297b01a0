"""Small data sets for tests: in memory, and on disk in the layout of FSSD-12."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cpanet.data.catalog import equal_runs
from cpanet.data.dataset import DefectDataset


def picture(seed: int, height: int = 40, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A noisy RGB image with a bright rectangle, and its mask {0, 1}."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 160, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = int(rng.integers(height // 2)), int(rng.integers(width // 2))
    mask[top : top + height // 3, left : left + width // 3] = 1
    image[mask == 1] += 90
    return image, mask


def tiny_dataset(classes: int = 4, per_class: int = 5, folds: int = 2) -> DefectDataset:
    """Random pictures in memory: ``classes`` classes of ``per_class`` images, 40×40."""
    names = tuple(f"class_{c}" for c in range(classes))
    pictures = [picture(i) for i in range(classes * per_class)]
    return DefectDataset(
        name="tiny",
        root=Path("nowhere"),
        classes=names,
        images=[image for image, _ in pictures],
        masks=[mask for _, mask in pictures],
        labels=np.repeat(np.arange(classes), per_class),
        names=[f"{c}/Images/{c}_{i + 1}.jpg" for c in names for i in range(per_class)],
        folds=equal_runs(names, folds),
        fingerprint="0" * 64,
    )


def encoded(suffix: str, image: np.ndarray) -> bytes:
    """The file of an image (grey or RGB) in the format of a suffix."""
    return cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1])[1].tobytes()


def exif(orientation: int) -> Image.Exif:
    """The tags of a picture that is stored in one of the eight orientations."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def save(path: Path, image: np.ndarray) -> Path:
    """Write an image (grey or RGB) in the format of its suffix, whatever the characters of its name; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(path.suffix, image))
    return path


def write_folder(root: Path, classes: tuple[str, ...] = ("a", "b", "c"), per_class: int = 3) -> Path:
    """A sound data set on disk; returns ``root``."""
    for c, name in enumerate(classes):
        for i in range(per_class):
            image, mask = picture(100 * c + i)
            save(root / name / "Images" / f"{name}_{i + 1}.jpg", image)
            save(root / name / "GT" / f"{name}_{i + 1}.png", mask * 255)
    return root


def labelled(root: Path) -> None:
    """Let the masks of ``write_folder`` hold 1 for the defect, and a row of 255."""
    for path in root.glob("*/GT/*.png"):
        values = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8)
        values[0] = 255
        save(path, values)
