"""The data sets by name: FSSD-12, the embedded set, metal8, and any folder in their layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cpanet.data import synthetic
from cpanet.data.check import MaskRule, MaskValues, Problem, printable, raise_problems, shorten
from cpanet.data.dataset import DefectDataset
from cpanet.data.folder import Contents, find_classes, read_folder
from cpanet.errors import UserError

DESCRIPTION = "dataset.yaml"
DEFAULT_FOLDS = 3  # of a folder that does not say; FSSD-12 has as many

Folds = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Layout:
    """Classes in order, test classes of each fold, and what a published set is forgiven.

    ``published`` sets are taken as they are: what would be a mistake in a folder of one's own (a mask that
    covers the whole image, grey values beside 0 and 255, two equal pictures) is only noted.
    """

    name: str
    classes: tuple[str, ...]
    folds: Folds
    published: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)  # images of a class, where known
    mask_threshold: int | None = None
    mask_values: MaskValues | None = None


def equal_runs(classes: Sequence[str], folds: int) -> Folds:
    """``folds`` runs of classes, as equal as can be; earlier runs take the classes that are left over."""
    return tuple(tuple(classes[i] for i in run) for run in np.array_split(np.arange(len(classes)), folds))


_FSSD12 = tuple(
    f"Steel_{c}" for c in ("Am", "Ia", "Ld", "Op", "Os", "Ws", "Pa", "Pk", "Ri", "Rp", "Sc", "Se")
)
FSSD12 = Layout(
    "fssd12",
    _FSSD12,
    equal_runs(_FSSD12, 3),
    published=True,
    aliases={"Steel_Ia": "Steel_la"},  # lower-case L, in some copies
    expected=dict.fromkeys(_FSSD12, 50),
)

_METAL8 = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven", "Steel_In", "Steel_Pa", "Steel_Sc")
METAL8 = Layout(
    "metal8",
    _METAL8,
    (
        ("Steel_In", "MT_Break"),
        ("Steel_Pa", "MT_Crack"),
        ("Steel_Sc", "MT_Uneven"),
        ("MT_Blowhole", "MT_Fray"),
    ),
    published=True,
    expected={**dict.fromkeys(_METAL8, 50), "MT_Fray": 32},
)

EMBEDDED = Layout(
    "embedded",
    synthetic.CLASSES,
    equal_runs(synthetic.CLASSES, 3),
    expected=dict.fromkeys(synthetic.CLASSES, synthetic.PER_CLASS),
)

PUBLISHED = {layout.name: layout for layout in (FSSD12, METAL8, EMBEDDED)}

NAMES = ("fssd12", "embedded", "metal8", "folder")


def describe_folder(root: Path, folds: int | None = None) -> Layout:
    """Classes and folds of any folder: from its ``dataset.yaml``, else equal runs of its classes."""
    found = find_classes(root)
    description = _read_description(root / DESCRIPTION)
    classes = tuple(description.get("classes") or found)
    if len(classes) < 2:
        raise UserError(
            f"{printable(str(root))} holds {len(classes)} classes (sub-folders with Images/ and GT/); "
            "training on some classes and testing on others needs at least 2. Check data.root."
        )
    if "folds" in description:
        chosen: Folds = tuple(tuple(fold) for fold in description["folds"])
        _check_folds(root / DESCRIPTION, chosen, classes)
    else:
        number = folds if folds is not None else min(DEFAULT_FOLDS, len(classes))
        if not 2 <= number <= len(classes):
            raise UserError(
                f"data.folds={number}: {printable(str(root))} has {len(classes)} classes, "
                f"so 2 to {len(classes)} folds are possible."
            )
        chosen = equal_runs(classes, number)
    return Layout(
        str(description.get("name") or root.resolve().name or "folder"),
        classes,
        chosen,
        mask_threshold=description.get("mask_threshold"),
        mask_values=MaskValues.of(description.get("mask_values")),
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(v, str) and v for v in value)


def _leads_away(folder: str) -> bool:
    return folder.startswith(".") or "/" in folder or "\0" in folder


def _read_description(path: Path) -> dict[str, Any]:
    """``dataset.yaml`` as plain data; {} where there is none."""
    if not path.exists():
        return {}
    where = printable(str(path))
    try:
        if not path.is_file() or path.stat().st_size > 2**20:
            raise UserError(f"{where} is not a text file of a few lines. Mend or remove it.")
        text = path.read_text("utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} should hold keys and values, such as folds: [[class, class], [class]].")
    checks = {
        "name": (lambda v: isinstance(v, str), "a text"),
        "classes": (
            lambda v: _is_names(v) and len(set(v)) == len(v) and not any(map(_leads_away, v)),
            "a list of different class folders",
        ),
        "folds": (
            lambda v: isinstance(v, list) and len(v) > 0 and all(_is_names(f) for f in v),
            "a list of lists of class folders",
        ),
        "mask_threshold": (
            lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 254,
            "a whole number from 0 to 254",
        ),
        "mask_values": (
            lambda v: isinstance(v, dict),
            "a mapping of lists, such as {defect: [1], ignore: [255]}",
        ),
    }
    for key, value in content.items():
        if key not in checks:
            raise UserError(f"{where} has an unknown key {key!r}. Known are {', '.join(checks)}.")
        valid, what = checks[key]
        if not valid(value):
            bare = None
            if key in ("name", "classes", "folds"):
                bare = _not_text(value, yaml.load(text, yaml.BaseLoader)[key])
            raise UserError(f"{where}: {key} must be {what}{_quote(bare)}.")
    if {"mask_threshold", "mask_values"} <= set(content):
        raise UserError(f"{where}: mask_threshold and mask_values exclude each other. Keep one.")
    return content


def _not_text(value: Any, typed: Any, depth: int = 3) -> tuple[str, Any] | None:
    """The first name that YAML did not read as text: as it was typed (1, no, null), and what YAML made of it."""
    if isinstance(value, list) and isinstance(typed, list) and depth:
        found = (_not_text(v, t, depth - 1) for v, t in zip(value, typed))
        return next((f for f in found if f is not None), None)
    return (typed, value) if isinstance(typed, str) and not isinstance(value, str) else None


def _quote(bare: tuple[str, Any] | None) -> str:
    if bare is None:
        return ""
    kinds = {bool: "yes or no", int: "a number", float: "a number", type(None): "nothing"}
    return f"; YAML reads {bare[0]} as {kinds.get(type(bare[1]), 'a date')}: write '{bare[0]}' in quotes"


def _check_folds(path: Path, folds: Folds, classes: Sequence[str]) -> None:
    where = printable(str(path))
    for number, fold in enumerate(folds):
        unknown = [c for c in fold if c not in classes]
        if unknown:
            raise UserError(
                f"{where}: fold {number} names {shorten(unknown)}, which is no class folder there."
            )
        if len(set(fold)) != len(fold):
            raise UserError(f"{where}: fold {number} names a class twice.")
        if len(fold) == len(classes):
            raise UserError(f"{where}: fold {number} tests every class, which leaves none to train on.")


def find_layout(name: str, root: Path, folds: int | None = None) -> Layout:
    """The layout of data set ``name``; a folder's is read from ``root``."""
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name == "folder":
        return describe_folder(root, folds)
    raise UserError(f"data.name={name}: there is no such data set. Choose one of {', '.join(NAMES)}.")


def looks_like(layout: Layout, root: Path) -> bool:
    """Whether ``root`` holds most class folders of ``layout``."""
    found = sum((root / c).is_dir() or (root / layout.aliases.get(c, c)).is_dir() for c in layout.classes)
    return 2 * found > len(layout.classes)


def resolve_auto(root: Path | None) -> tuple[str, Path | None, str]:
    """The data set that ``data=auto`` stands for here: (name, root, sentence that says why).

    FSSD-12 where its folder is given and there, the embedded set where none is given. A folder that is given
    but is not FSSD-12 is a mistake, not a reason to train on something else.
    """
    if root is None:
        return (
            "embedded",
            None,
            "no FSSD-12 folder was given (data.root or FSSD12_ROOT), so the embedded set is used.",
        )
    root = _existing(Path(root))
    for candidate in (root, root / "FSSD-12"):
        if looks_like(FSSD12, candidate):
            return "fssd12", candidate, f"FSSD-12 was found in {printable(str(candidate))}."
    raise UserError(
        f"{printable(str(root))} does not hold the class folders of FSSD-12 (Steel_Am … Steel_Se). "
        "Point data.root or FSSD12_ROOT to them, or use data=folder for another data set."
    )


def _existing(root: Path) -> Path:
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(
            f"data.root={printable(str(root))} {what}. Give the folder that holds the class folders."
        )
    return root


def examine(
    name: str,
    root: Path,
    mask_threshold: int | None = None,
    min_images: int = 2,
    folds: int | None = None,
    mask_values: MaskValues | None = None,
) -> tuple[Layout, Contents]:
    """Read ``root`` as data set ``name`` and collect everything that is wrong with it."""
    root = _existing(Path(root))
    layout = find_layout(name, root, folds)
    return layout, examine_layout(layout, root, mask_threshold, min_images, mask_values)


def examine_layout(
    layout: Layout,
    root: Path,
    mask_threshold: int | None = None,
    min_images: int = 2,
    mask_values: MaskValues | None = None,
) -> Contents:
    """Read the classes of ``layout`` below ``root`` and collect everything that is wrong with them."""
    if mask_threshold is not None and mask_values is not None:
        raise UserError("data.mask_threshold and data.mask_values exclude each other. Give one of them.")
    root = _existing(root)
    folders = [
        layout.aliases[c] if not (root / c).is_dir() and (root / layout.aliases.get(c, c)).is_dir() else c
        for c in layout.classes
    ]
    if mask_threshold is None and mask_values is None:
        mask_threshold, mask_values = layout.mask_threshold, layout.mask_values
    contents = read_folder(
        root,
        layout.classes,
        MaskRule(mask_threshold, layout.published, mask_values),
        folders,
        duplicates="note" if layout.published else "problem",
    )
    for canonical, folder in zip(layout.classes, folders):
        if folder != canonical:
            contents.notes.append(f"folder {folder} is read as {canonical}")
    for index, canonical in enumerate(layout.classes):
        number = contents.labels.count(index)
        wanted = layout.expected.get(canonical, number)
        if layout.published and 0 < number != wanted:
            contents.notes.append(f"{canonical} has {number} images, the published set {wanted}")
        if number < min_images and (root / folders[index]).is_dir():
            detail = f"has {number} usable images; {min_images - 1}-shot episodes need at least {min_images}"
            contents.problems.append(Problem(canonical, "class too small", detail))
    return contents


def read_set(
    layout: Layout,
    root: Path,
    mask_threshold: int | None = None,
    min_images: int = 2,
    mask_values: MaskValues | None = None,
) -> DefectDataset:
    """The classes of ``layout`` below ``root``, decoded. Raises UserError with all problems."""
    return _dataset(layout, root, examine_layout(layout, root, mask_threshold, min_images, mask_values))


def load_dataset(
    name: str,
    root: Path | None = None,
    cache: Path | None = None,
    mask_threshold: int | None = None,
    min_images: int = 2,
    folds: int | None = None,
    mask_values: MaskValues | Mapping[str, Any] | None = None,
) -> DefectDataset:
    """Read data set ``name`` ("fssd12", "embedded", "metal8", "folder") into memory.

    ``root`` holds the class folders; the embedded set needs none, it is drawn into ``cache`` at its first
    use. ``mask_threshold``: grey above it is defect; without it 255 is, and other values than 0 and 255 are
    refused (in the published sets: background). ``mask_values`` says what each value means instead, such as
    ``{"defect": [1], "ignore": [255]}``; ignored pixels are 255 in the masks. ``min_images`` of each class: shot + 1.
    ``folds``: number of equal runs of classes, for a folder without ``dataset.yaml``. Raises
    ``UserError`` with all problems.
    """
    if root is None and name != "embedded":
        raise UserError(f"data.root is not set. Give the folder that holds {name}: data.root=FOLDER.")
    values = MaskValues.of(mask_values)
    drawn = root is None
    root = synthetic.ensure(cache) if root is None else Path(root)
    layout, contents = examine(name, root, mask_threshold, min_images, folds, values)
    if drawn and contents.fingerprint != synthetic.FINGERPRINT:
        # Files were damaged or changed. Pictures that come out differently on this machine are possible, too.
        root = synthetic.ensure(cache, again=True)
        layout, contents = examine(name, root, mask_threshold, min_images, folds, values)
        if contents.fingerprint != synthetic.FINGERPRINT:
            contents.notes.append("the embedded set comes out differently here than on other machines")
    return _dataset(layout, root, contents)


def _dataset(layout: Layout, root: Path, contents: Contents) -> DefectDataset:
    raise_problems(layout.name, root, contents.problems)
    return DefectDataset(
        layout.name,
        root,
        layout.classes,
        contents.images,
        contents.masks,
        np.array(contents.labels, np.int64),
        contents.names,
        layout.folds,
        contents.fingerprint,
        contents.notes,
        value_range=contents.value_range,
    )
