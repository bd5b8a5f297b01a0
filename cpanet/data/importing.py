"""From other forms of annotation to the folder layout: label-coded masks, LabelMe and COCO.

A picture with several classes is written to the one with the fewest pictures, and its other defects are ignored there:
in two classes it would be tested where it was trained on. Nothing is written unless every file can be used.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple

import cv2
import numpy as np

from cpanet.data.check import Problem, printable, raise_problems, shorten
from cpanet.data.folder import IMAGES, MASKS, list_folder, list_pictures, masks_by_stem, new_folder
from cpanet.data.images import IMAGE_SUFFIXES, Header, Refused, decode_mask, decode_pixels, read_header
from cpanet.errors import UserError
from cpanet.files import write_atomically

BACKGROUND, DEFECT, IGNORE = 0, 255, 128  # in the masks that are written
IGNORED_LABEL = 255  # of label-coded masks, as in PASCAL VOC
MOST_LABELS = 64  # a mask with more values is no map of labels
IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "imgs", "img")
MASK_FOLDERS = ("masks", "labels", "annotations", "GT", "SegmentationClass", "mask", "gt")


@dataclass
class Imported:
    """Result of an import: the form that was recognised, images of each class, and notes."""

    form: str
    images: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)  # pictures with several classes


class Item(NamedTuple):
    """A picture, the file that annotates it, and its masks by class, made when they are asked for."""

    image: Path
    annotation: Path
    masks: Callable[[Header], Mapping[str, np.ndarray]]  # uint8 (H, W), in the three values above


def import_dataset(source: Path, target: Path) -> Imported:
    """Write ``source`` to the new folder ``target`` as <class>/Images and <class>/GT. Raises UserError with all problems.

    A COCO file (one .json with images and annotations), LabelMe files (one .json a picture) or label-coded masks (each
    value above 0 a class, 255 ignored) are recognised by themselves.
    """
    if not source.is_dir():
        what = "is no folder" if source.exists() else "does not exist"
        raise UserError(f"{printable(str(source))} {what}. Give the folder of images and annotations.")
    problems: list[Problem] = []
    form, items = _recognise(source, problems)
    imported = Imported(form)
    with new_folder(target) as work:
        ignored, names = _write(items, source, work, imported, problems)
        raise_problems(form, source, problems)
        if len(imported.images) < 2:
            imported.notes.append("training and testing need at least two classes")
        if ignored:
            imported.notes.append(f"ignored pixels are {IGNORE} in the masks; dataset.yaml says so")
            text = f"mask_values: {{defect: [{DEFECT}], ignore: [{IGNORE}]}}\n"
            write_atomically(work / "dataset.yaml", text.encode())
        if imported.shared:
            imported.notes.append(
                "pictures with several classes stand in the rarest of them, their other defects ignored: "
                + shorten(imported.shared)
            )
        if names:
            imported.notes.append(f"pictures without a defect were left out: {shorten(names)}")
    return imported


def _recognise(source: Path, problems: list[Problem]) -> tuple[str, list[Item]]:
    documents = {
        path: _json(path, problems) for path in sorted(source.rglob("*.json")) if not _hidden(path, source)
    }
    coco = {p: d for p, d in documents.items() if isinstance(d, dict) and {"images", "annotations"} <= set(d)}
    labelme = {p: d for p, d in documents.items() if isinstance(d, dict) and "shapes" in d}
    if coco:
        return "COCO", [
            item for path, content in coco.items() for item in _coco(path, content, source, problems)
        ]
    if labelme:
        return "LabelMe", [_labelme(path, content) for path, content in labelme.items()]
    pairs = list(_label_pairs(source, problems))
    if pairs:
        return "label-coded masks", [Item(image, mask, _by_label(mask)) for image, mask in pairs]
    raise_problems("import", source, problems)
    raise UserError(
        f"{printable(str(source))} holds neither a COCO file, LabelMe files nor pictures with masks (images/ and masks/, "
        "or NAME.jpg with NAME_mask.png). Give the folder that holds both."
    )


def _write(
    items: list[Item], source: Path, work: Path, imported: Imported, problems: list[Problem]
) -> tuple[bool, list[str]]:
    """Every picture in one of its classes; whether pixels are ignored, and the pictures without a defect."""
    classes = [_classes(item, source, problems) for item in items]
    pictures = Counter(name for names in classes for name in names)
    ignored, taken = False, set[str]()
    for item, names in zip(items, classes):
        if not names or problems:
            continue
        name = min(names, key=lambda name: (pictures[name], name))
        masks = item.masks(read_header(item.image))
        mask = masks[name]
        for other in masks.values():
            mask[(other == DEFECT) & (mask == BACKGROUND)] = IGNORE
        if len(names) > 1:
            imported.shared.append(item.image.name)
        images, truth = work / name / IMAGES, work / name / MASKS
        images.mkdir(parents=True, exist_ok=True)
        truth.mkdir(exist_ok=True)
        stem = _free_name(item.image, source, taken)
        shutil.copyfile(item.image, images / f"{stem}{item.image.suffix}")
        (truth / f"{stem}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
        ignored = ignored or bool((mask == IGNORE).any())
        imported.images[name] = imported.images.get(name, 0) + 1
    return ignored, [item.image.name for item, names in zip(items, classes) if not names]


def _classes(item: Item, source: Path, problems: list[Problem]) -> list[str]:
    """The classes that a picture shows; what is wrong with its files goes to ``problems``."""
    at = item.image
    try:
        header = read_header(item.image)
        decode_pixels(item.image.read_bytes())
        at = item.annotation
        names = list(item.masks(header))
        for name in names:
            if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
                raise Refused("class name", f"{printable(name)!r} cannot name a folder")
        return names
    except Refused as refused:
        problems.append(_problem(at, source, refused.rule, refused.detail))
    except OSError as error:
        problems.append(_problem(at, source, "unreadable file", f"cannot be read ({error.strerror})"))
    return []


def _free_name(image: Path, source: Path, taken: set[str]) -> str:
    """The picture's stem; with its folders where two pictures share it."""
    stem = image.stem
    if stem in taken:
        stem = (
            "_".join(image.relative_to(source).with_suffix("").parts)
            if image.is_relative_to(source)
            else stem
        )
        while stem in taken:
            stem += "_"
    taken.add(stem)
    return stem


def _problem(path: Path, source: Path, rule: str, detail: str) -> Problem:
    shown = path.relative_to(source) if path.is_relative_to(source) else path
    return Problem(printable(str(shown)), rule, detail)


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _json(path: Path, problems: list[Problem]) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        detail = f"cannot be read as JSON ({' '.join(str(error).split())[:80]})"
        problems.append(Problem(printable(path.name), "unreadable file", detail))
        return None


# --- label-coded masks --------------------------------------------------------------------------------------


def _label_pairs(source: Path, problems: list[Problem]) -> Iterator[tuple[Path, Path]]:
    """Pictures with their masks: in two folders beside each other, or in one."""
    there = set(list_folder(source))
    images = next((source / n for n in IMAGE_FOLDERS if n in there), source)
    masks = next((source / n for n in MASK_FOLDERS if n in there), source)
    files = list_pictures(images)
    stems = {Path(f).stem for f in files}
    if images == masks:  # NAME.jpg with NAME.png is a picture with its mask, too
        others = {Path(f).stem for f in files if not f.lower().endswith(".png")}
        files = [f for f in files if not (f.lower().endswith(".png") and Path(f).stem in others)]
    candidates = [f for f in list_folder(masks) if images != masks or f not in files]
    found = masks_by_stem(candidates, stems)
    for file in files:
        if Path(file).stem in found:
            yield images / file, masks / found[Path(file).stem]
        elif found:
            problems.append(
                _problem(images / file, source, "missing mask", f"none in {masks.name}/ has its name")
            )


def _by_label(path: Path) -> Callable[[Header], Mapping[str, np.ndarray]]:
    def masks(header: Header) -> dict[str, np.ndarray]:
        mask_header = read_header(path)
        if mask_header.size != header.size:
            raise Refused("size mismatch", f"is {mask_header.width}×{mask_header.height}, its image not")
        values = decode_mask(path.read_bytes())
        labels = [int(v) for v in np.unique(values) if v != 0]
        if labels != [IGNORED_LABEL]:  # 255 alone is the one class of a binary mask
            labels = [v for v in labels if v != IGNORED_LABEL]
        if len(labels) > MOST_LABELS:
            raise Refused("unexpected mask values", f"holds {len(labels)} values, too many to be labels")
        found = {}
        for label in labels:
            mask = np.where(values == label, 255, 0).astype(np.uint8)
            if label != IGNORED_LABEL:
                mask[values == IGNORED_LABEL] = IGNORE
            found[f"class_{label}"] = mask
        return found

    return masks


# --- polygons -----------------------------------------------------------------------------------------------


def _labelme(path: Path, content: Mapping[str, Any]) -> Item:
    name = str(content.get("imagePath") or "").replace("\\", "/").rsplit("/", 1)[-1]
    candidates = [path.with_name(name)] if name else []
    candidates += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    image = next((p for p in candidates if p.is_file()), candidates[0])

    def masks(header: Header) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        shapes = content["shapes"]
        for shape in shapes if isinstance(shapes, list) else ():
            try:
                label, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
                points = np.array(shape["points"], np.float64).reshape(-1, 2)
                _draw(found.setdefault(label, np.zeros(header.size[::-1], np.uint8)), points, kind)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise Refused("damaged annotation", "holds a shape without label or points") from None
        return {label: mask for label, mask in found.items() if mask.any()}

    return Item(image, path, masks)


def _draw(mask: np.ndarray, points: np.ndarray, kind: str) -> None:
    """Fill a LabelMe shape with 255."""
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
        raise ValueError("points that are no numbers")
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    elif kind == "circle" and len(points) == 2:
        radius = round(float(np.hypot(*(points[1] - points[0]))))
        cv2.circle(mask, tuple(int(v) for v in np.rint(points[0])), radius, 255, -1)
        return
    elif kind != "polygon":
        raise Refused("unsupported shape", f"holds a {kind}; polygons, rectangles and circles are read")
    if len(points) < 3:
        raise ValueError("a polygon of fewer than three points")
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)


def _coco(path: Path, content: Mapping[str, Any], source: Path, problems: list[Problem]) -> Iterator[Item]:
    try:
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in content["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        images = [(i["id"], str(i["file_name"])) for i in content["images"]]
    except (KeyError, TypeError):
        problems.append(_problem(path, source, "damaged annotation", "lacks ids, names or categories"))
        return
    for number, name in images:
        pure = Path(name.replace("\\", "/"))
        places = [path.parent, source, *(source / f for f in IMAGE_FOLDERS)]
        at = next((p / n for p in places for n in (pure, pure.name) if (p / n).is_file()), source / pure.name)
        yield Item(at, path, _coco_masks(annotations.get(number, []), categories))


def _coco_masks(
    annotations: list[Mapping[str, Any]], categories: Mapping[Any, str]
) -> Callable[[Header], Mapping[str, np.ndarray]]:
    def masks(header: Header) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for annotation in annotations:
            try:
                mask = found.setdefault(
                    categories[annotation["category_id"]], np.zeros(header.size[::-1], np.uint8)
                )
                segmentation = annotation["segmentation"]
                if isinstance(segmentation, dict):
                    mask[_run_lengths(segmentation, header)] = 255
                else:
                    for polygon in segmentation:
                        _draw(mask, np.array(polygon, np.float64).reshape(-1, 2), "polygon")
            except (KeyError, TypeError, ValueError):
                raise Refused("damaged annotation", "holds a segmentation that cannot be read") from None
        return {name: mask for name, mask in found.items() if mask.any()}

    return masks


def _run_lengths(segmentation: Mapping[str, Any], header: Header) -> np.ndarray:
    """bool (H, W) of COCO's uncompressed run lengths, which go down the columns."""
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        raise Refused("unsupported shape", "holds compressed run lengths; export polygons")
    if (
        list(segmentation["size"]) != [header.height, header.width]
        or sum(counts) != header.width * header.height
    ):
        raise Refused("size mismatch", "holds run lengths of another size than the picture")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(header.width, header.height).T
