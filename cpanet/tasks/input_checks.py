"""Checks of what a task is given (data sets, weights, checkpoints), before anything is written, and its segmenter.

Starts no Jittor, but for classes that are not among the options of ``conf/``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from cpanet import options, runtime
from cpanet.checkpoint.files import check_file
from cpanet.config.schema import Common, UseConfig
from cpanet.data.catalog import Layout
from cpanet.data.folder import Contents, list_pairs
from cpanet.data.memory import dataset_of
from cpanet.errors import UserError
from cpanet.predict.segmenter import Segmenter


def check_inputs(config: Common, device: str | None = None) -> None:
    """Look at what a task that uses episodes is given, but for the content of pictures.

    ``device``: where Jittor is started if a class has to be asked, as in :func:`check_parts`. Raises UserError for a
    fold or a number of shots that the data set lacks, for weights or a checkpoint that cannot be read, and for parts of
    the network that cannot be made.
    """
    check_folder(config)
    if isinstance(config, UseConfig):
        check_checkpoint(config, device)
    else:
        check_weights(config)
        check_parts(config, head=config.method == "cpanet", device=device)


def check_folder(config: Common) -> None:
    """Look into the data set's folder, names only. Raises UserError where fold or shot do not fit it."""
    if config.data.root is None or config.data.synthetic:
        return
    root = Path(config.data.root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root = {root}: {what}. Give the folder that holds the class folders.")
    layout = config.data.layout()
    problems = fold_problems(config.fold, layout)
    sizes = {
        name: size for name, size in _sizes_on_disk(root, layout).items() if size
    }  # 0: the reader's matter
    problems += shot_problems(config.shot, sizes)
    if problems:
        raise UserError("\n  ".join(problems))


def read_images(config: Common) -> None:
    """Decode the data set of a run that is about to start, which then finds it in memory.

    Raises UserError with everything that is wrong with it.
    """
    if not config.data.synthetic:  # which has no files that could be damaged
        dataset_of(config.data, config.shot)


def check_parts(config: Common, head: bool, device: str | None = None) -> None:
    """Raises UserError for a backbone, and with ``head`` for a part of the head, that cannot be made from its section.

    Options as they stand in ``conf/`` can be made; for any other Jittor is started, whose classes they are: on
    ``device``, else on the one that the configuration asks for.
    """
    values = config.model_dump()
    if options.offers("backbone", values["backbone"]) and (
        not head or options.offers("ablation", values["ablation"])
    ):
        return
    runtime.prepare(
        device or config.device, config.log.verbose, precision=None if device else config.precision
    )
    from cpanet import models

    models.check_parts(values, head)


def check_weights(config: Common) -> None:
    """Raises UserError for a file of backbone weights that is not there or damaged."""
    if config.backbone.weights not in ("auto", "random"):
        path = Path(config.backbone.weights).expanduser()
        _check_once(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=8)
def _check_once(path: Path, changed: int) -> None:
    """:func:`check_file`, once for all jobs of a sweep: of other formats than ``.safetensors`` it reads everything."""
    del changed
    check_file(path)


def check_checkpoint(config: UseConfig, device: str | None = None) -> None:
    """Raises UserError where a checkpoint, a backbone or its weights are needed and not to be had."""
    if config.checkpoint is None and config.method != "prototype":
        raise UserError(
            f"checkpoint = null: task={config.task} needs one: checkpoint=RUN_DIR or a .safetensors or .pth file; "
            "or method=prototype, which needs no training."
        )
    if config.checkpoint is None or config.method != "cpanet":  # a checkpoint holds the backbone's weights
        check_weights(config)
        check_parts(config, head=False, device=device)


def segmenter_of(config: UseConfig, **settings: Any) -> Segmenter:
    """The segmenter that the configuration describes; ``settings`` are further arguments of it."""
    return Segmenter(
        None if config.method == "prototype" else config.checkpoint,
        image_size=config.data.image_size,
        device=config.device,
        backbone=config.backbone.model_dump(),
        weights=config.backbone.weights,
        seed=config.seed,
        stage=config.baseline.stage,
        support_mask=config.protocol.support_mask,
        **settings,
    )


def fold_problems(fold: Any, layout: Layout) -> list[str]:
    """A sentence where the data set has no such fold."""
    if type(fold) is not int or 0 <= fold < len(layout.folds):
        return []
    return [
        f"fold = {fold}: data set {layout.name} has folds {', '.join(map(str, range(len(layout.folds))))}"
    ]


def shot_problems(shot: Any, sizes: dict[str, int]) -> list[str]:
    """A sentence where a class has too few images for ``shot`` supports and a query; ``sizes``: images by class."""
    if type(shot) is not int or not sizes or shot < min(sizes.values()):
        return []
    name = min(sizes, key=lambda key: sizes[key])
    return [
        f"shot = {shot}: class {name} has {sizes[name]} images, one of which is the query;"
        f" at most {sizes[name] - 1} can be supports"
    ]


def _sizes_on_disk(root: Path, layout: Layout) -> dict[str, int]:
    """Images with a mask, by class."""
    return {
        name: len(list_pairs(root, index, name, layout.folder_of(name, root), Contents()))
        for index, name in enumerate(layout.classes)
    }
