"""Description of a checkpoint without loading it: the network, its classes, its picture size. Imports no Jittor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpanet import options
from cpanet.checkpoint import names
from cpanet.checkpoint.files import (
    FORMAT,
    MODEL_PREFIX,
    READERS,
    SAFETENSORS,
    SUFFIXES,
    read_header,
    state_of,
)
from cpanet.errors import UserError
from cpanet.records.result_file import DamagedResult, read_result

PAPER_SIZE = 200  # pixels; of files that do not say
_BLOCKS_TO_DEPTH = {6: 50, 23: 101, 36: 152}  # of a ResNet's layer3

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """A checkpoint, described.

    ``path``: the file with the weights, None for a run of the training-free method. ``config``: the configuration that
    it records, or as much as its tensors tell. ``classes``: those it was trained on, None where it does not say.
    ``picture_side``: median longer side of the training pictures in pixels, None where it does not say. ``notes``:
    what was assumed.
    """

    path: Path | None
    config: dict[str, Any]
    classes: tuple[str, ...] | None = None
    picture_side: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees, in pixels."""
        return int(self.config["data"]["image_size"])

    @property
    def summed_shots(self) -> int | None:
        """Supports of a training episode where prototypes were summed, as released; None where they were averaged.

        Such a network expects prototypes that are this many times the mean (``protocol.prototype_average=batch``).
        """
        summed = self.config.get("protocol", {}).get("prototype_average") == "batch"
        return int(self.config.get("shot", 1)) if summed else None


def describe(path: Path | str) -> Description:
    """The checkpoint at ``path``, a file or a run's directory (its best epoch; its last where there is no best).

    Raises UserError where there is none, or where it is no CPANet.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _describe_run(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint={path}: there is no such file or directory. Give a run's directory or a file."
        )
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"checkpoint={path}: weights are read from {', '.join(SUFFIXES)} files and run directories."
        )
    if path.suffix != SAFETENSORS:
        return _from_tensors(
            path, {name: tensor.shape for name, tensor in READERS[path.suffix](path).items()}
        )
    shapes, metadata = read_header(path, f"checkpoint={path}")
    if metadata.get("format") != FORMAT:
        return _from_tensors(path, shapes)
    return _from_record(path, state_of(metadata, path))


def _describe_run(directory: Path) -> Description:
    for name in ("best", "last"):
        file = directory / "checkpoints" / f"{name}.safetensors"
        if file.is_file():
            return describe(file)
    try:
        config = (read_result(directory) or {}).get("config")
    except DamagedResult:
        config = None
    if isinstance(config, dict) and config.get("method") == "prototype":
        return Description(None, options.current(config))
    held = "jobs of a sweep: give one of them" if list(directory.glob("*/checkpoints")) else "no checkpoint"
    raise UserError(f"checkpoint={directory} holds {held}. Give the directory of a run, or a file.")


def _from_record(path: Path, state: Mapping[str, Any]) -> Description:
    config = state.get("config")
    if not isinstance(config, dict):
        raise UserError(f"checkpoint={path}: damaged, it records no configuration.")
    # from before it was a choice
    config = {**options.current(config), "protocol": {"support_mask": "point", **config.get("protocol", {})}}
    classes, side = state.get("train_classes"), state.get("picture_side")
    return Description(
        path,
        config,
        tuple(map(str, classes)) if isinstance(classes, list) else _published_classes(config),
        side if isinstance(side, int) else None,
    )


def _published_classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Training classes of a published data set's fold, for checkpoints that do not list them."""
    from cpanet.data.catalog import PUBLISHED

    layout, fold = PUBLISHED.get(str(config.get("data", {}).get("name"))), config.get("fold")
    if layout is None or not isinstance(fold, int) or not 0 <= fold < len(layout.folds):
        return None
    return tuple(name for name in layout.classes if name not in layout.folds[fold])


def _from_tensors(path: Path, shapes: Shapes) -> Description:
    """Backbone, width and modules by names and shapes: files with weights and nothing else."""
    own = names.below(MODEL_PREFIX, shapes) or dict(shapes)
    if names.looks_released(own):
        own = names.renamed(own, names.from_released)
    backbone, width = _backbone(own), own.get("down_query.weight", (0,))[0]
    if backbone is None or not width:
        raise UserError(
            f"checkpoint={path}: not the weights of a whole CPANet (no "
            f"{'backbone' if backbone is None else 'head'} among its {len(shapes)} tensors). "
            "ImageNet weights belong to backbone.weights."
        )
    modules = {part: any(name.startswith(f"{part}.") for name in own) for part in ("cpp", "sa", "ssa")}
    config = options.current(
        {
            "method": "cpanet",
            "backbone": {"name": backbone},
            "ablation": modules,
            "model": {"width": int(width)},
            "data": {"image_size": PAPER_SIZE},
            "protocol": {"support_mask": "point"},  # as the released code samples it
        }
    )
    return Description(
        path,
        config,
        notes=[
            f"{path.name} holds weights alone: {backbone}, {width} channels by its tensors; trained at "
            f"{PAPER_SIZE}×{PAPER_SIZE} pixels is assumed (data.image_size=…), on which classes is not known"
        ],
    )


def _backbone(shapes: Shapes) -> str | None:
    """The option of ``conf/backbone`` that the tensors belong to."""
    stem = shapes.get("backbone.layer0.0.weight")
    if stem is None:
        return None
    if "backbone.layer1.0.conv1.weight" in shapes:
        blocks = {int(m[1]) for name in shapes if (m := re.match(r"backbone\.layer3\.(\d+)\.", name))}
        built = {"depth": _BLOCKS_TO_DEPTH.get(len(blocks)), "deep_stem": tuple(stem)[-1] == 3}
    else:
        built = {"depth": None, "batch_norm": "backbone.layer0.1.running_mean" in shapes}
    options_of = {name: options.read("backbone", name) for name in options.names("backbone")}
    fitting = (n for n, o in options_of.items() if all(o.get(key) == value for key, value in built.items()))
    return next(fitting, None)
