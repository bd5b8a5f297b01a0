"""From a decoded image and mask to what the network sees: the released code's transforms.

Images come as uint8 RGB (H, W, 3) with masks uint8 (H, W) {0, 1}; results are float32 (3, S, S), normalised
with the ImageNet mean and standard deviation, and labels uint8 (S, S) {0, 1, 255 = ignored}.

Both transforms begin by scaling the longer side to S. For the 200×200 images of FSSD-12 at S = 200 that does
nothing; it lets other sizes S, and data sets of other image sizes, keep the paper's proportions.
"""

from __future__ import annotations

import cv2
import numpy as np

IGNORE = 255
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
GREY = tuple(float(m) for m in MEAN)  # what is padded with

SCALE = (0.9, 1.1)
ROTATE_DEGREES = 10.0
KEEP_DEFECT = 0.85
MORE_CROPS = 30


def normalise(image: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) in 0–255 → float32 (3, H, W), zero mean and unit deviation over ImageNet."""
    return np.ascontiguousarray(((image.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1))


def denormalise(image: np.ndarray) -> np.ndarray:
    """float32 (3, H, W) as the network sees it → uint8 RGB (H, W, 3), for pictures."""
    return np.clip(np.rint(image.transpose(1, 2, 0) * STD + MEAN), 0, 255).astype(np.uint8)


def resize(image: np.ndarray, label: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear for the image, nearest for the label."""
    if label.shape == (height, width):
        return image, label
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image, resize_label(label, height, width)


def resize_label(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """The label of :func:`resize` alone."""
    return cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)


def rotate(image: np.ndarray, label: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """About the centre, size kept; what comes in from outside is the mean, and ignored."""
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    border = cv2.BORDER_CONSTANT
    image = cv2.warpAffine(image, matrix, (width, height), None, cv2.INTER_LINEAR, border, GREY)
    label = cv2.warpAffine(label, matrix, (width, height), None, cv2.INTER_NEAREST, border, (IGNORE,))
    return image, label


def pad(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """To at least size × size, half of the padding on either side, as the released code does."""
    height, width = label.shape
    more_h, more_w = max(size - height, 0), max(size - width, 0)
    if not (more_h or more_w):
        return image, label
    sides = (more_h // 2, more_h - more_h // 2, more_w // 2, more_w - more_w // 2)
    image = cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=GREY)
    label = cv2.copyMakeBorder(label, *sides, cv2.BORDER_CONSTANT, value=(IGNORE,))
    return image, label


def crop_corner(label: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a random size × size window that keeps 85 % of the defect pixels.

    Drawn once and up to 30 times more; after that the last one drawn is taken as it is.
    """
    defect = label == 1
    wanted = KEEP_DEFECT * np.count_nonzero(defect)
    top = left = 0
    for _ in range(1 + MORE_CROPS):
        top = int(rng.integers(label.shape[0] - size + 1))
        left = int(rng.integers(label.shape[1] - size + 1))
        if np.count_nonzero(defect[top : top + size, left : left + size]) >= wanted:
            break
    return top, left


def train(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The training transform: scale, rotate, blur, flip, pad, crop, normalise.

    The scale U[0.9, 1.1] multiplies the one that brings the longer side to ``size``. Everything random comes
    from ``rng``.
    """
    height, width = mask.shape
    scale = rng.uniform(*SCALE) * size / max(height, width)
    rotated, blurred, flipped = rng.random(3) < 0.5
    degrees = rng.uniform(-ROTATE_DEGREES, ROTATE_DEGREES)

    # Float from here on, so that padding with the mean is exactly zero once normalised.
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    image, label = resize(image.astype(np.float32), mask, *sides)
    if rotated:
        image, label = rotate(image, label, degrees)
    if blurred:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    if flipped:
        image, label = image[:, ::-1], label[:, ::-1]
    image, label = pad(image, label, size)
    top, left = crop_corner(label, size, rng)
    window = np.s_[top : top + size, left : left + size]
    return normalise(image[window]), np.ascontiguousarray(label[window])


def canvas_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of the test image on its canvas: longer side to ``size``, then down to eights.

    A side is never less than 8: pictures more than ``size``/8 times as long as wide would vanish otherwise.
    """
    longer = max(height, width)
    return max(8, height * size // longer // 8 * 8), max(8, width * size // longer // 8 * 8)


def test(image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The test transform: scaled to ``canvas_shape``, top-left on a canvas that is black, and ignored."""
    height, width = canvas_shape(mask.shape[0], mask.shape[1], size)
    image, label = resize(image.astype(np.float32), mask, height, width)
    canvas = np.zeros((size, size, 3), np.float32)
    labels = np.full((size, size), IGNORE, np.uint8)
    canvas[:height, :width] = image
    labels[:height, :width] = label
    return normalise(canvas), labels
