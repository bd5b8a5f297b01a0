"""From other forms of annotation to the folder layout: label-coded masks, LabelMe and COCO.

A picture with several classes is written to the one with the fewest pictures, and its other defects are ignored there:
in two classes it would be tested where it was trained on. Nothing is written unless every file can be used.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
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
NOTHING = "nothing known"
MOST_LABELS = 64  # a mask with more values is no map of labels
IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "imgs", "img")
MASK_FOLDERS = ("masks", "labels", "annotations", "GT", "SegmentationClass", "mask", "gt")

Masks = Mapping[str, np.ndarray]  # by class: uint8 (H, W), in the three values above
Refuse = Callable[[Path, str, str], None]  # collects a file, the rule that it breaks, and what is wrong


@dataclass
class Imported:
    """Result of an import: the form that was recognised, images of each class, and notes."""

    form: str
    images: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Item(NamedTuple):
    """A picture, the file that annotates it, and its masks, made when they are asked for."""

    image: Path
    annotation: Path
    masks: Callable[[Header], Masks]


def import_dataset(source: Path, target: Path) -> Imported:
    """Write ``source`` to the new folder ``target`` as <class>/Images and <class>/GT. Raises UserError with all problems.

    A COCO file (one .json with images and annotations), LabelMe files (one .json a picture) or label-coded masks (each
    value above 0 a class, 255 ignored) are recognised by themselves.
    """
    if not source.is_dir():
        what = "is no folder" if source.exists() else "does not exist"
        raise UserError(f"{printable(str(source))} {what}. Give the folder of images and annotations.")
    problems: list[Problem] = []

    def refuse(path: Path, rule: str, detail: str) -> None:
        shown = path.relative_to(source) if path.is_relative_to(source) else path
        problems.append(Problem(printable(str(shown)), rule, detail))

    form, items = _recognise(source, refuse)
    if form == NOTHING:
        raise_problems("import", source, problems)
        raise UserError(
            f"{printable(str(source))} holds neither a COCO file, LabelMe files nor pictures with masks (images/ and "
            "masks/, or NAME.jpg with NAME_mask.png). Give the folder that holds both."
        )
    with new_folder(target) as work:
        classes = [_classes(item, refuse) for item in items]
        raise_problems(form, source, problems)
        return _write(form, items, classes, source, work)


def _recognise(source: Path, refuse: Refuse) -> tuple[str, list[Item]]:
    coco: list[tuple[Path, dict[str, Any]]] = []
    labelme: list[Item] = []
    for path in sorted(source.rglob("*.json")):
        if any(part.startswith(".") for part in path.relative_to(source).parts):
            continue
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            words = " ".join(str(error).split())[:80]
            refuse(path, "unreadable file", f"cannot be read as JSON ({words})")
            continue
        if isinstance(content, dict) and {"images", "annotations"} <= set(content):
            coco.append((path, content))
        elif isinstance(content, dict) and "shapes" in content:
            labelme.append(_labelme(path, content))
    if coco:
        return "COCO", [item for path, content in coco for item in _coco(path, content, source, refuse)]
    if labelme:
        return "LabelMe", labelme
    labelled = list(_labelled(source, refuse))
    return "label-coded masks" if labelled else NOTHING, labelled


def _classes(item: Item, refuse: Refuse) -> list[str]:
    """The classes that a picture shows, once its files have been found sound."""
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
        refuse(at, refused.rule, refused.detail)
    except OSError as error:
        refuse(at, "unreadable file", f"cannot be read ({error.strerror})")
    return []


def _write(form: str, items: list[Item], classes: list[list[str]], source: Path, work: Path) -> Imported:
    """Every picture in one of its classes."""
    imported, ignored, taken = Imported(form), False, set[str]()
    pictures = Counter(name for names in classes for name in names)
    for item, names in zip(items, classes):
        if not names:
            continue
        name = min(names, key=lambda name: (pictures[name], name))
        masks = item.masks(read_header(item.image))
        mask = masks[name]
        for other in masks.values():
            mask[(other == DEFECT) & (mask == BACKGROUND)] = IGNORE
        images, truth = work / name / IMAGES, work / name / MASKS
        images.mkdir(parents=True, exist_ok=True)
        truth.mkdir(exist_ok=True)
        stem = _free_name(item.image, source, taken)
        shutil.copyfile(item.image, images / f"{stem}{item.image.suffix}")
        (truth / f"{stem}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
        ignored = ignored or bool((mask == IGNORE).any())
        imported.images[name] += 1
    if len(imported.images) < 2:
        imported.notes.append("training and testing need at least two classes")
    if ignored:
        imported.notes.append(f"ignored pixels are {IGNORE} in the masks; dataset.yaml says so")
        text = f"mask_values: {{defect: [{DEFECT}], ignore: [{IGNORE}]}}\n"
        write_atomically(work / "dataset.yaml", text.encode())
    shared = [item.image.name for item, names in zip(items, classes) if len(names) > 1]
    without = [item.image.name for item, names in zip(items, classes) if not names]
    if shared:
        several = "pictures with several classes stand in the rarest of them, their other defects ignored"
        imported.notes.append(f"{several}: {shorten(shared)}")
    if without:
        imported.notes.append(f"pictures without a defect were left out: {shorten(without)}")
    return imported


def _free_name(image: Path, source: Path, taken: set[str]) -> str:
    """The picture's stem; with its folders where two pictures share it."""
    stem = image.stem
    if stem in taken and image.is_relative_to(source):
        stem = "_".join(image.relative_to(source).with_suffix("").parts)
    while stem in taken:
        stem += "_"
    taken.add(stem)
    return stem


# --- label-coded masks --------------------------------------------------------------------------------------


def _labelled(source: Path, refuse: Refuse) -> Iterator[Item]:
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
            mask = masks / found[Path(file).stem]
            yield Item(images / file, mask, partial(_by_label, mask))
        elif found:
            refuse(images / file, "missing mask", f"none in {masks.name}/ has its name")


def _by_label(path: Path, header: Header) -> Masks:
    size = read_header(path).size
    if size != header.size:
        raise Refused("size mismatch", f"is {size[0]}×{size[1]}, its image not")
    values = decode_mask(path.read_bytes())
    labels = [int(v) for v in np.unique(values) if v != 0]
    if labels != [IGNORED_LABEL]:  # 255 alone is the one class of a binary mask
        labels = [v for v in labels if v != IGNORED_LABEL]
    if len(labels) > MOST_LABELS:
        raise Refused("unexpected mask values", f"holds {len(labels)} values, too many to be labels")
    border = np.where(values == IGNORED_LABEL, IGNORE, BACKGROUND)
    return {f"class_{v}": np.where(values == v, DEFECT, border).astype(np.uint8) for v in labels}


# --- polygons -----------------------------------------------------------------------------------------------

# Of an annotation: its class, and what to fill its mask with.
Drawing = Callable[[Any, np.ndarray], None]


def _painted(
    annotations: Iterable[Any], class_of: Callable[[Any], str], draw: Drawing, damage: str, header: Header
) -> Masks:
    """Masks of the annotations of a picture, each drawn into that of its class."""
    found: dict[str, np.ndarray] = {}
    for annotation in annotations:
        try:
            draw(annotation, found.setdefault(class_of(annotation), np.zeros(header.size[::-1], np.uint8)))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Refused("damaged annotation", damage) from None
    return {name: mask for name, mask in found.items() if mask.any()}


def _fill(mask: np.ndarray, points: Any, kind: str = "polygon") -> None:
    """Fill a shape of LabelMe's kinds with 255."""
    points = np.array(points, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
        raise ValueError("points that are no numbers")
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    elif kind == "circle" and len(points) == 2:
        radius = round(float(np.hypot(*(points[1] - points[0]))))
        cv2.circle(mask, tuple(int(v) for v in np.rint(points[0])), radius, DEFECT, -1)
        return
    elif kind != "polygon":
        raise Refused("unsupported shape", f"holds a {kind}; polygons, rectangles and circles are read")
    if len(points) < 3:
        raise ValueError("a polygon of fewer than three points")
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], DEFECT)


def _labelme(path: Path, content: Mapping[str, Any]) -> Item:
    name = str(content.get("imagePath") or "").replace("\\", "/").rsplit("/", 1)[-1]
    candidates = [path.with_name(name)] if name else []
    candidates += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    image = next((p for p in candidates if p.is_file()), candidates[0])
    shapes = content["shapes"] if isinstance(content["shapes"], list) else []

    def draw(shape: Any, mask: np.ndarray) -> None:
        _fill(mask, shape["points"], shape.get("shape_type") or "polygon")

    damage = "holds a shape without label or points"
    return Item(image, path, partial(_painted, shapes, lambda shape: str(shape["label"]), draw, damage))


def _coco(path: Path, content: Mapping[str, Any], source: Path, refuse: Refuse) -> Iterator[Item]:
    try:
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        annotations: dict[Any, list[Any]] = {}
        for annotation in content["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        images = [(i["id"], str(i["file_name"])) for i in content["images"]]
    except (KeyError, TypeError):
        refuse(path, "damaged annotation", "lacks ids, names or categories")
        return

    def draw(annotation: Any, mask: np.ndarray) -> None:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict):
            mask[_run_lengths(segmentation, *mask.shape)] = DEFECT
        else:
            for polygon in segmentation:
                _fill(mask, polygon)

    for number, name in images:
        pure = Path(name.replace("\\", "/"))
        places = [path.parent, source, *(source / f for f in IMAGE_FOLDERS)]
        at = next((p / n for p in places for n in (pure, pure.name) if (p / n).is_file()), source / pure.name)
        damage = "holds a segmentation that cannot be read"
        of_image = annotations.get(number, [])
        yield Item(
            at, path, partial(_painted, of_image, lambda a: categories[a["category_id"]], draw, damage)
        )


def _run_lengths(segmentation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """bool (H, W) of COCO's uncompressed run lengths, which go down the columns."""
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        raise Refused("unsupported shape", "holds compressed run lengths; export polygons")
    if list(segmentation["size"]) != [height, width] or sum(counts) != height * width:
        raise Refused("size mismatch", "holds run lengths of another size than the picture")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
