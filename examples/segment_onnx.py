"""Mark a defect with an exported network; onnxruntime, OpenCV and NumPy are all it takes.

    python examples/segment_onnx.py EXPORT_DIR SUPPORT_DIR QUERY_DIR OUT_DIR

SUPPORT_DIR holds annotated pictures as NAME.png or NAME.jpg with NAME_mask.png, white where the defect is.
A picture is read as the project reads it: turned by its EXIF orientation, CMYK as RGB, and more than 8 bits from the
supports' range of values to 0-255. A mask is drawn on what is shown. A pixel is marked where its probability exceeds 0.5.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

export, support, query, out = map(Path, sys.argv[1:])
encoder = onnxruntime.InferenceSession(str(export / "support_encoder.onnx"))
segmenter = onnxruntime.InferenceSession(str(export / "query_segmenter.onnx"))
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
size = int(segmenter.get_modelmeta().custom_metadata_map["image_size"])


def pictures(folder):
    """Paths of the pictures in a folder; no masks, hidden files or Thumbs.db."""
    named = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return [p for p in named if not p.stem.endswith("_mask")]


def decode(path):
    """RGB (H, W, 3) as it is shown, of 8 bits or more."""
    picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if picture is None:
        sys.exit(f"{path} cannot be read: damaged, or a TIFF that lies on its side. Save it anew.")
    return picture[..., ::-1]


def eight_bits(picture, low, high):
    """``picture`` with ``low`` to ``high`` as 0 to 255, where it has more than 8 bits."""
    if picture.dtype == np.uint8:
        return picture
    return np.clip(np.rint((picture.astype("f4") - low) * (255 / max(high - low, 1e-12))), 0, 255)


def on_canvas(picture, method=cv2.INTER_LINEAR, around=0):
    """The longer side scaled to ``size``, both down to multiples of 8, top left on ``around``; and the two sides."""
    height, width = (max(8, n * size // max(picture.shape[:2]) // 8 * 8) for n in picture.shape[:2])
    canvas = np.full((size, size, *picture.shape[2:]), around, np.float32)
    canvas[:height, :width] = cv2.resize(picture.astype("f4"), (width, height), interpolation=method)
    return canvas, height, width


shown = [(path, decode(path)) for path in pictures(support)]
deep = [picture for _, picture in shown if picture.dtype != np.uint8]
limits = (float(min(p.min() for p in deep)), float(max(p.max() for p in deep))) if deep else (0, 1)
images = [on_canvas(eight_bits(picture, *limits))[0].transpose(2, 0, 1) for _, picture in shown]
masks = [cv2.imread(str(path.with_name(f"{path.stem}_mask.png")), 0) == 255 for path, _ in shown]
masks = [on_canvas(mask, cv2.INTER_NEAREST, around=255)[0] for mask in masks]
(prototype,) = encoder.run(None, {"images": np.stack(images), "masks": np.stack(masks)})

out.mkdir(exist_ok=True)
for path in pictures(query):
    image = decode(path)
    low, high = limits if deep else (image.min(), image.max())
    canvas, height, width = on_canvas(eight_bits(image, float(low), float(high)))
    feed = {"images": canvas.transpose(2, 0, 1)[None], "prototype": prototype}
    background, defect = segmenter.run(["logits"], feed)[0][0, :, :height, :width]
    difference = cv2.resize(defect - background, image.shape[1::-1])
    cv2.imwrite(str(out / f"{path.stem}.png"), np.uint8(255) * (difference > 0))
