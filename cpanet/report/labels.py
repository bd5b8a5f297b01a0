"""Names of keys and values in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpanet import options
from cpanet.report.values import ABSENT, MEAN, PATHS, Value, short_paths

VARIANT, METHOD, TRAINING_FREE = "variant", "method", "prototype"
AXES = {
    "ablation": "modules",
    "loss.k": "k",
    "shot": "shots",
    "data.image_size": "image size",
    "model.width": "width",
    "train.epochs": "epochs",
    "recipe.optimizer": "optimiser",
    "recipe.optimizer.lr": "learning rate",
    "backbone.weights_used": "backbone weights",
    "baseline.stage": "features",
    VARIANT: "behaviour",
}
LABELLED = ("ablation", "backbone", "data")  # their options have labels, and runs record them
NO_MODULES = options.label("ablation", "none")
MODULES = ("CPP", "SA", "SSA")


def axis_label(axis: str) -> str:
    """Heading of an axis."""
    return AXES.get(axis, axis)


def value_label(axis: str, value: Value, values: Sequence[Value], labels: Mapping[Value, str]) -> str:
    """A value by itself, in a column of ``values``; ``labels``: what runs call their choices."""
    if value == MEAN:
        return "mean"
    if isinstance(value, int) and any(isinstance(other, float) for other in values):
        return f"{value:.1f}"
    if axis in PATHS:
        return short_paths([value, *values])[value]
    if axis in LABELLED:
        declared = value in options.names(axis)
        return options.label(axis, str(value)) if declared else labels.get(value, str(value))
    return str(value)


def phrase(axis: str, value: Value, text: str) -> str:
    """A value, whose label is ``text``, that says what it is a value of: ``k = 0.2``, ``fold 0``, ``ResNet-50``."""
    if value == MEAN:
        return f"mean over {axis_label(axis)}s"
    if axis == METHOD and value == TRAINING_FREE:
        return "training-free"
    if axis in (*LABELLED, "data", METHOD, VARIANT):
        return text
    if axis in ("fold", "profile", "protocol", "recipe"):
        return f"{axis} {text}"
    if axis == "shot":
        return f"{text}-shot"
    if axis == "data.image_size":
        return f"{text}×{text} pixels"
    return f"{axis_label(axis)} = {text}"


def module_marks(label: str) -> tuple[str, ...] | None:
    """✓ or – for CPP, SA and SSA, nothing for a method without them; None where ``label`` is no combination of them."""
    if label == ABSENT:
        return ("",) * len(MODULES)
    parts = set() if label == NO_MODULES else set(label.split(" + "))
    return tuple("✓" if module in parts else "–" for module in MODULES) if parts <= set(MODULES) else None
