"""The data sets by name: FSSD-12, the embedded set, metal8, and any folder in their layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator

from cpanet.data import synthetic
from cpanet.data.check import MaskRule, Problem, meanings_of, printable, raise_problems, shorten
from cpanet.data.dataset import DefectDataset
from cpanet.data.folder import Contents, find_classes, read_folder
from cpanet.data_section import Meanings
from cpanet.errors import UserError
from cpanet.section import Section, Text

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
    mask_values: Meanings | None = None

    def folder_of(self, name: str, root: Path) -> str:
        """The folder of a class below ``root``, which some copies give another name."""
        other = self.aliases.get(name, name)
        return other if not (root / name).is_dir() and (root / other).is_dir() else name

    def rule(self, mask_threshold: int | None, mask_values: Any) -> MaskRule:
        """How masks are read where the configuration says these two. Raises UserError where it says both."""
        if mask_threshold is not None and mask_values is not None:
            raise UserError("data.mask_threshold and data.mask_values exclude each other. Give one of them.")
        if mask_threshold is None and mask_values is None:
            mask_threshold, mask_values = self.mask_threshold, self.mask_values
        return MaskRule(mask_threshold, self.published, meanings_of(mask_values))


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

PUBLISHED = {layout.name: layout for layout in (FSSD12, EMBEDDED, METAL8)}
NAMES = (*PUBLISHED, "folder")


class _Description(Section):
    """``dataset.yaml``; a field's description says what is allowed."""

    name: str = Field("", description="a text")
    classes: list[Text] = Field([], min_length=1, description="a list of different class folders")
    folds: list[Annotated[list[Text], Field(min_length=1)]] = Field(
        [], min_length=1, description="a list of lists of class folders"
    )
    mask_threshold: Optional[int] = Field(  # noqa: UP045 (pydantic reads it on Python 3.9, too)
        None, ge=0, le=254, description="a whole number from 0 to 254"
    )
    mask_values: Optional[dict[Any, Any]] = Field(  # noqa: UP045
        None, description="a mapping of lists, such as {defect: [1], ignore: [255]}"
    )

    @field_validator("classes")
    @classmethod
    def _different_folders(cls, names: list[str]) -> list[str]:
        leads_away = any(name.startswith(".") or "/" in name or "\0" in name for name in names)
        if leads_away or len(set(names)) < len(names):
            raise ValueError
        return names


def describe_folder(root: Path, folds: int | None = None) -> Layout:
    """Classes and folds of any folder: from its ``dataset.yaml``, else equal runs of its classes."""
    described = _read_description(root / DESCRIPTION)
    classes = tuple(described.classes or find_classes(root))
    if len(classes) < 2:
        raise UserError(
            f"{printable(str(root))} holds {len(classes)} classes (sub-folders with Images/ and GT/); "
            "training on some classes and testing on others needs at least 2. Check data.root."
        )
    chosen: Folds = tuple(tuple(fold) for fold in described.folds)
    _check_folds(root / DESCRIPTION, chosen, classes)
    if not chosen:
        number = folds if folds is not None else min(DEFAULT_FOLDS, len(classes))
        if not 2 <= number <= len(classes):
            raise UserError(
                f"data.folds={number}: {printable(str(root))} has {len(classes)} classes, "
                f"so 2 to {len(classes)} folds are possible."
            )
        chosen = equal_runs(classes, number)
    return Layout(
        described.name or root.resolve().name or "folder",
        classes,
        chosen,
        mask_threshold=described.mask_threshold,
        mask_values=meanings_of(described.mask_values),
    )


def _read_description(path: Path) -> _Description:
    """``dataset.yaml``, where there is one."""
    if not path.exists():
        return _Description.model_validate({})
    where = printable(str(path))
    try:
        if not path.is_file() or path.stat().st_size > 2**20:
            raise UserError(f"{where} is not a text file of a few lines. Mend or remove it.")
        text = path.read_text("utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, (dict, type(None))):
        raise UserError(f"{where} should hold keys and values, such as folds: [[class, class], [class]].")
    try:
        described = _Description.model_validate(content or {})
    except ValidationError as error:
        problem = error.errors()[0]
        key = problem["loc"][0]
        fields = _Description.model_fields
        if key not in fields:
            raise UserError(f"{where} has an unknown key {key!r}. Known are {', '.join(fields)}.") from None
        quotes = _quotes(problem["input"], problem["loc"], text)
        raise UserError(f"{where}: {key} must be {fields[str(key)].description}{quotes}.") from None
    if {"mask_threshold", "mask_values"} <= described.model_fields_set:
        raise UserError(f"{where}: mask_threshold and mask_values exclude each other. Keep one.")
    return described


def _quotes(value: Any, at: Sequence[Any], text: str) -> str:
    """What to do about a name that YAML did not read as text, such as 1, no or null."""
    if at[0] not in ("name", "classes", "folds") or isinstance(value, str):
        return ""
    try:
        typed = yaml.load(text, yaml.BaseLoader)
        for part in at:
            typed = typed[part]
    except (yaml.YAMLError, KeyError):  # a list that holds itself, or keys of another mapping
        return ""
    if not isinstance(typed, str):
        return ""
    kinds = {bool: "yes or no", int: "a number", float: "a number", type(None): "nothing"}
    return f"; YAML reads {typed} as {kinds.get(type(value), 'a date')}: write '{typed}' in quotes"


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
    """The layout of data set ``name``; a folder's is read from ``root``. Raises UserError where there is no such folder."""
    existing(root)
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name == "folder":
        return describe_folder(root, folds)
    raise UserError(f"data.name={name}: there is no such data set. Choose one of {', '.join(NAMES)}.")


def looks_like(layout: Layout, root: Path) -> bool:
    """Whether ``root`` holds most class folders of ``layout``."""
    found = sum((root / layout.folder_of(name, root)).is_dir() for name in layout.classes)
    return 2 * found > len(layout.classes)


def resolve_auto(root: Path | None) -> tuple[str, Path | None, str]:
    """The data set that ``data=auto`` stands for here: (name, root, sentence that says why).

    FSSD-12 where its folder is given and there, the embedded set where none is given. A folder that is given
    but is not FSSD-12 is a mistake, not a reason to train on something else.
    """
    if root is None:
        why = "no FSSD-12 folder was given (data.root or FSSD12_ROOT), so the embedded set is used."
        return "embedded", None, why
    for candidate in (existing(root), root / "FSSD-12"):
        if looks_like(FSSD12, candidate):
            return "fssd12", candidate, f"FSSD-12 was found in {printable(str(candidate))}."
    raise UserError(
        f"{printable(str(root))} does not hold the class folders of FSSD-12 (Steel_Am … Steel_Se). "
        "Point data.root or FSSD12_ROOT to them, or use data=folder for another data set."
    )


def existing(root: Path) -> Path:
    """``root``, a folder. Raises UserError where it is none."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(
            f"data.root={printable(str(root))} {what}. Give the folder that holds the class folders."
        )
    return root


def examine(layout: Layout, root: Path, rule: MaskRule, min_images: int = 2) -> Contents:
    """Read the classes of ``layout`` below ``root`` and collect everything that is wrong with them."""
    root = existing(root)
    folders = {name: layout.folder_of(name, root) for name in layout.classes}
    contents = read_folder(root, folders, rule)
    contents.notes += [f"folder {f} is read as {name}" for name, f in folders.items() if f != name]
    for index, (name, folder) in enumerate(folders.items()):
        number = contents.labels.count(index)
        wanted = layout.expected.get(name, number)
        if layout.published and 0 < number != wanted:
            contents.notes.append(f"{name} has {number} images, the published set {wanted}")
        if number < min_images and (root / folder).is_dir():
            detail = f"has {number} usable images; {min_images - 1}-shot episodes need at least {min_images}"
            contents.problems.append(Problem(name, "class too small", detail))
    return contents


def read_set(layout: Layout, root: Path, rule: MaskRule, min_images: int = 2) -> DefectDataset:
    """The classes of ``layout`` below ``root``, decoded. Raises UserError with all problems."""
    return _dataset(layout, root, examine(layout, root, rule, min_images))


def load_dataset(
    name: str,
    root: Path | None = None,
    cache: Path | None = None,
    mask_threshold: int | None = None,
    min_images: int = 2,
    folds: int | None = None,
    mask_values: Any = None,
) -> DefectDataset:
    """Read data set ``name`` ("fssd12", "embedded", "metal8", "folder") into memory.

    ``root`` holds the class folders; the embedded set needs none, it is drawn into ``cache`` at its first
    use. ``mask_threshold``: grey above it is defect; without it 255 is, and other values than 0 and 255 are
    refused (in the published sets: background). ``mask_values`` says what each value means instead, such as
    ``{"defect": [1], "ignore": [255]}``; ignored pixels are 255 in the masks. ``min_images`` of each class: shot + 1.
    ``folds``: number of equal runs of classes, for a folder without ``dataset.yaml``. Raises
    ``UserError`` with all problems.
    """
    if root is not None:
        layout = find_layout(name, Path(root), folds)
        return read_set(layout, Path(root), layout.rule(mask_threshold, mask_values), min_images)
    if name != "embedded":
        raise UserError(f"data.root is not set. Give the folder that holds {name}: data.root=FOLDER.")
    root, rule = synthetic.ensure(cache), EMBEDDED.rule(mask_threshold, mask_values)
    contents = examine(EMBEDDED, root, rule, min_images)
    if contents.fingerprint != synthetic.FINGERPRINT:
        # Files were damaged or changed. Pictures that come out differently on this machine are possible, too.
        contents = examine(EMBEDDED, synthetic.ensure(cache, again=True), rule, min_images)
        if contents.fingerprint != synthetic.FINGERPRINT:
            contents.notes.append("the embedded set comes out differently here than on other machines")
    return _dataset(EMBEDDED, root, contents)


def _dataset(layout: Layout, root: Path, contents: Contents) -> DefectDataset:
    raise_problems(layout.name, root, contents.problems)
    read = {name: value for name, value in vars(contents).items() if name != "problems"}
    read["labels"] = np.array(contents.labels, np.int64)
    return DefectDataset(name=layout.name, root=root, classes=layout.classes, folds=layout.folds, **read)
