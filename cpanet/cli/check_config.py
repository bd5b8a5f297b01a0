"""Checks of a command from its configuration alone; each task checks its own files (``cpanet.tasks``)."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from cpanet import targets
from cpanet.config.check import validate
from cpanet.data import DataSet
from cpanet.errors import UserError
from cpanet.tasks import USE_EPISODES
from cpanet.tasks.input_checks import fold_problems, shot_problems


def check(config: DictConfig) -> Any:
    """``config`` as its task's class, see :func:`cpanet.config.check.validate`; its data set's class is asked, too."""
    return validate(config, known_problems)


def known_problems(values: dict[str, Any]) -> list[str]:
    """Problems that follow from the data set's class alone. ``values``: resolved, but not yet checked."""
    data = values.get("data")
    if not isinstance(data, dict) or values.get("task", "train") not in USE_EPISODES:
        return []
    if data.get("name") == "auto":  # left where its folder is none: said by the check of the section
        return []
    try:
        kind: type[DataSet] = targets.class_of(data, DataSet, DataSet.KEY)
    except (UserError, KeyError):
        return []  # said by the check of the section
    name, root, folds, layout = data.get("name"), data.get("root"), data.get("folds"), kind.LAYOUT
    problems = []
    if root is None and not kind.synthetic:
        variable = f", or the environment variable {kind.VARIABLE}" if kind.VARIABLE else ""
        problems.append(f"data.root = null: where is {name}? Give its folder: data.root=PATH{variable}")
    if layout is not None:
        problems += fold_problems(values.get("fold"), layout)
        if root is None or kind.synthetic:
            problems += shot_problems(values.get("shot"), dict(layout.expected))
        if folds is not None:
            problems.append(
                f"data.folds = {folds}: the folds of {name} are fixed; only data=folder has a choice"
            )
    return problems
