"""How keys and values are called in a table."""

from __future__ import annotations

from collections.abc import Sequence

from cpanet.report.arrange import VARIANT
from cpanet.report.values import Value

MEAN = "mean"
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
    VARIANT: "behaviour",
}
BACKBONES = {"vgg16": "VGG-16", "vgg16_bn": "VGG-16 (BN)"}
DATA = {"fssd12": "FSSD-12"}
MODULES = ("cpp", "sa", "ssa")


def axis_label(axis: str) -> str:
    """Heading of an axis."""
    return AXES.get(axis, axis)


def value_label(axis: str, value: Value, values: Sequence[Value] = ()) -> str:
    """A value by itself, in a column of ``values``."""
    if value == MEAN:
        return "mean"
    if isinstance(value, int) and any(isinstance(other, float) for other in values):
        return f"{value:.1f}"
    if axis == "backbone":
        return backbone_label(str(value))
    if axis == "data":
        return DATA.get(str(value), str(value))
    if axis == "ablation":
        return modules_label(str(value))
    return str(value)


def phrase(axis: str, value: Value, values: Sequence[Value] = ()) -> str:
    """A value that says what it is a value of: ``k = 0.2``, ``fold 0``, ``ResNet-50``."""
    text = value_label(axis, value, values)
    if value == MEAN:
        return f"mean over {axis_label(axis)}s"
    if axis in ("ablation", "backbone", "data", VARIANT):
        return text
    if axis in ("fold", "profile", "protocol", "recipe"):
        return f"{axis} {text}"
    if axis == "shot":
        return f"{text}-shot"
    if axis == "data.image_size":
        return f"{text}×{text} pixels"
    return f"{axis_label(axis)} = {text}"


def modules_label(name: str) -> str:
    """``cpp_sa`` → ``CPP + SA``."""
    if name == "full":
        return "CPP + SA + SSA"
    parts = name.split("_")
    return (
        " + ".join(p.upper() for p in parts)
        if set(parts) <= set(MODULES)
        else name.replace("none", "no modules")
    )


def module_marks(name: Value) -> tuple[str, ...] | None:
    """✓ or – for CPP, SA and SSA; None where ``name`` is no combination of them."""
    parts = MODULES if name == "full" else tuple(p for p in str(name).split("_") if p != "none")
    if not set(parts) <= set(MODULES):
        return None
    return tuple("✓" if module in parts else "–" for module in MODULES)


def backbone_label(name: str) -> str:
    """``resnet50_deep`` → ``ResNet-50 (deep stem)``."""
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith("resnet"):
        number, _, stem = name[len("resnet") :].partition("_")
        return f"ResNet-{number}" + (" (deep stem)" if stem else "")
    return name
