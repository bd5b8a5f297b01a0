"""Mark a defect with an exported network; onnxruntime, OpenCV and NumPy are all it takes.

    python examples/segment_onnx.py EXPORT_DIR SUPPORT_DIR QUERY_DIR OUT_DIR

SUPPORT_DIR holds annotated pictures as NAME.png or NAME.jpg with NAME_mask.png, white where the defect is.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

export, support, query, out = map(Path, sys.argv[1:])
encoder = onnxruntime.InferenceSession(str(export / "support_encoder.onnx"))
segmenter = onnxruntime.InferenceSession(str(export / "query_segmenter.onnx"))
size = int(segmenter.get_modelmeta().custom_metadata_map["image_size"])


def on_canvas(picture, method=cv2.INTER_LINEAR):
    """The longer side scaled to ``size``, both down to multiples of 8, top left on black; and the two sides."""
    height, width = (max(8, n * size // max(picture.shape[:2]) // 8 * 8) for n in picture.shape[:2])
    canvas = np.zeros((size, size, *picture.shape[2:]), np.float32)
    canvas[:height, :width] = cv2.resize(picture.astype("f4"), (width, height), interpolation=method)
    return canvas, height, width


images, masks = [], []
for path in sorted(support.glob("*_mask.png")):
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == 255
    image = cv2.imread(str(next(support.glob(path.name.replace("_mask.png", ".*")))))[..., ::-1]  # RGB
    images.append(on_canvas(image)[0].transpose(2, 0, 1))
    masks.append(on_canvas(mask, cv2.INTER_NEAREST)[0])
(prototype,) = encoder.run(None, {"images": np.stack(images), "masks": np.stack(masks)})

out.mkdir(exist_ok=True)
for path in sorted(query.iterdir()):
    image = cv2.imread(str(path))[..., ::-1]
    canvas, height, width = on_canvas(image)
    feed = {"images": canvas.transpose(2, 0, 1)[None], "prototype": prototype}
    background, defect = segmenter.run(["logits"], feed)[0][0, :, :height, :width]
    difference = cv2.resize(defect - background, image.shape[1::-1])
    cv2.imwrite(str(out / f"{path.stem}.png"), np.uint8(255) * (difference > 0))
