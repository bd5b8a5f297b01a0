"""What the data set rules out: folds it lacks, shots for which a class is too small, images that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpanet.config.schema import Common
from cpanet.data import embedded
from cpanet.data.catalog import EMBEDDED, FSSD12, METAL8, Layout, find_layout
from cpanet.data.folder import Contents, list_pairs
from cpanet.data.memory import dataset_of
from cpanet.errors import UserError

PUBLISHED = {layout.name: layout for layout in (FSSD12, METAL8, EMBEDDED)}


def known_problems(values: dict[str, Any]) -> list[str]:
    """Problems that follow from the data set's name alone. ``values``: resolved, but not yet checked."""
    data = values.get("data")
    if not isinstance(data, dict):
        return []
    name, root, folds = data.get("name"), data.get("root"), data.get("folds")
    layout = PUBLISHED.get(str(name))
    problems = []
    if layout is not None:
        problems += _fold_problems(values.get("fold"), layout)
        if root is None or name == "embedded":
            problems += _shot_problems(values.get("shot"), _published_sizes(layout))
        if root is None and name != "embedded":
            problems.append(
                f"data.root = null: where is {name}? Give its folder: data.root=PATH, or the environment"
                f" variable {str(name).upper()}_ROOT"
            )
        if folds is not None:
            problems.append(
                f"data.folds = {folds}: the folds of {name} are fixed; only data=folder has a choice"
            )
    elif name == "folder" and root is None:
        problems.append("data.root = null: data=folder needs the folder's path: data.root=PATH")
    return problems


def uses_dataset(task: Any) -> bool:
    """Whether ``task`` works on a data set's episodes, rather than on pictures that are named."""
    return task not in ("predict", "export", "explore")


def check_folder(config: Common) -> None:
    """Look into the data set's folder, names only. Raises UserError where fold or shot do not fit it."""
    if not uses_dataset(config.task):
        return
    if config.data.root is None or config.data.name == "embedded":
        return
    root = Path(config.data.root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root = {root}: {what}. Give the folder that holds the class folders.")
    layout = find_layout(config.data.name, root, config.data.folds)
    problems = _fold_problems(config.fold, layout)
    sizes = {
        name: size for name, size in _sizes_on_disk(root, layout).items() if size
    }  # 0: the reader's matter
    problems += _shot_problems(config.shot, sizes)
    if problems:
        raise UserError("\n  ".join(problems))


def read_images(config: Common) -> None:
    """Decode the data set of a run that is about to start, which then finds it in memory.

    Raises UserError with everything that is wrong with it.
    """
    if uses_dataset(config.task) and config.data.name != "embedded":  # which is made by this project itself
        dataset_of(config.data, config.shot)


def _fold_problems(fold: Any, layout: Layout) -> list[str]:
    if type(fold) is not int or 0 <= fold < len(layout.folds):
        return []
    return [
        f"fold = {fold}: data set {layout.name} has folds {', '.join(map(str, range(len(layout.folds))))}"
    ]


def _shot_problems(shot: Any, sizes: dict[str, int]) -> list[str]:
    if type(shot) is not int or not sizes or shot < min(sizes.values()):
        return []
    name = min(sizes, key=lambda key: sizes[key])
    return [
        f"shot = {shot}: class {name} has {sizes[name]} images, one of which is the query;"
        f" at most {sizes[name] - 1} can be supports"
    ]


def _published_sizes(layout: Layout) -> dict[str, int]:
    return dict(layout.expected) or dict.fromkeys(layout.classes, embedded.PER_CLASS)


def _sizes_on_disk(root: Path, layout: Layout) -> dict[str, int]:
    """Images with a mask, by class."""
    sizes = {}
    for index, name in enumerate(layout.classes):
        folder = name if (root / name).is_dir() else layout.aliases.get(name, name)
        sizes[name] = len(list_pairs(root, index, name, folder, Contents()))
    return sizes
