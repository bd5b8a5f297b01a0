"""The options under ``conf/``: what each declares once, and what records from before they declared it leave unsaid.

An option of ``backbone`` or ``ablation`` holds its name, its label in tables, its classes and their arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cpanet.targets import KEY

PARTS = ("prototype", "decoder", "auxiliary")
TRAINED_WITH = ("weights", "lr", "epochs")  # of a backbone's option, what is no part of the network
BESIDE_NETWORK = (
    "label",
    "imagenet",
    *TRAINED_WITH,
)  # and with it what decides nothing that the network computes


_SETS = {"loss_k": "loss.k"}  # groups of numbers


def key_of(name: str) -> str:
    """The key that the group or key ``name`` sets: itself, but for groups of numbers."""
    return _SETS.get(name, name)


def folder() -> Path:
    """Where ``config.yaml`` and its groups are: inside an installed package, else beside the package's folder."""
    package = Path(__file__).resolve().parent
    installed = package / "_conf"
    return installed if installed.is_dir() else package.parent / "conf"


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """The options of ``group``, sorted."""
    return tuple(sorted(path.stem for path in (folder() / group).glob("*.yaml")))


def read(group: str, name: str) -> dict[str, Any]:
    """The option's content as plain data; empty where there is no such option."""
    return dict(_read(group, name)) if name in names(group) else {}


@functools.cache
def _read(group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def offers(group: str, section: Mapping[str, Any]) -> bool:
    """Whether an option of ``group`` makes its network, or part of one, of the same classes and arguments as ``section``."""

    def kept(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in ("name", *BESIDE_NETWORK)}

    return any(kept(read(group, name)) == kept(section) for name in names(group))


def label(group: str, name: str) -> str:
    """How tables call the option: its ``label``, else its name."""
    return str(read(group, name).get("label", name))


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded ``config`` in this version's form.

    Earlier versions named a backbone, a data set, an optimiser and a schedule alone, named no class of the loss and of
    episodes, and said of CPP, SA and SSA whether each is there.
    """
    found = dict(config)
    backbone, ablation, recipe = found.get("backbone"), found.get("ablation"), found.get("recipe")
    data = found.get("data")
    if isinstance(backbone, Mapping):
        found["backbone"] = _backbone(backbone)
    if isinstance(ablation, Mapping):
        found["ablation"] = _ablation(ablation)
    if isinstance(data, Mapping) and KEY not in data:
        option = read("data", str(data.get("name")))
        found["data"] = {**({KEY: option[KEY]} if KEY in option else {}), **data}
    if isinstance(recipe, Mapping):
        named = {kind: _of_recipe(kind, recipe[kind]) for kind in ("optimizer", "schedule") if kind in recipe}
        for kind, before in (("loss", {}), ("episodes", {"name": "plain"})):
            option = read(f"recipe/{kind}", "plain")
            named[kind] = {KEY: option[KEY], **(recipe.get(kind) or before)}
        found["recipe"] = {**recipe, **named}
    return found


def _backbone(section: Mapping[str, Any]) -> dict[str, Any]:
    option = read("backbone", str(section.get("name")))
    if section.get(KEY, option.get(KEY)) != option.get(KEY):
        return dict(section)
    return {**{key: value for key, value in option.items() if key not in TRAINED_WITH}, **section}


_UNUSED = {"adamw": ("momentum", 0.9), "cosine": ("power", None)}  # stood beside a name and was not read


def _of_recipe(kind: str, section: Any) -> Any:
    option = read(f"recipe/{kind}", str(section.get("name"))) if isinstance(section, Mapping) else {}
    if not option or KEY in section:
        return section
    found = {KEY: option[KEY], **section}
    unused, value = _UNUSED.get(section["name"], ("", None))
    found.pop(unused, None)
    return found if value is None else {**found, unused: value}


def _ablation(section: Mapping[str, Any]) -> dict[str, Any]:
    modules = ("cpp", "sa", "ssa")
    if not any(module in section for module in modules):
        return dict(section)
    on = [module for module in modules if section.get(module) is True]
    return read("ablation", "full" if len(on) == len(modules) else "_".join(on) or "none")


def named_for_its_parts(ablation: Mapping[str, Any]) -> dict[str, Any]:
    """``ablation`` under the name of the option whose parts it has, where its own name is that of another option.

    ``ablation=full`` with ``ablation.auxiliary=null`` is ``cpp_ssa``. Parts that no option has give their classes' names.
    """
    parts = {key: ablation.get(key) for key in PARTS}
    if ablation.get("name") not in names("ablation"):
        return dict(ablation)
    for name in (str(ablation["name"]), *names("ablation")):
        option = read("ablation", name)
        if {key: option.get(key) for key in PARTS} == parts:
            return {**ablation, "name": name, "label": option.get("label")}
    targets = [str(part.get(KEY)) for part in parts.values() if isinstance(part, Mapping)]
    name = "+".join(target.rpartition(".")[2] for target in targets)
    return {**ablation, "name": name, "label": name}


# Overrides that earlier versions took, and those that are typed now.
_PART = "ablation.{}={{_target_: cpanet.models.{}}}"
_TYPED = {
    "ablation.cpp=true": _PART.format("prototype", "CrossPositionProxy"),
    "ablation.cpp=false": _PART.format("prototype", "MaskedAverage"),
    "ablation.ssa=true": _PART.format("decoder", "SpaceSqueezeAttention"),
    "ablation.ssa=false": _PART.format("decoder", "ConvDecoder"),
    "ablation.sa=true": _PART.format("auxiliary", "SupportAuxiliary"),
    "ablation.sa=false": "ablation.auxiliary=null",
}


def as_typed_now(override: str) -> str:
    """An override that an earlier version took, as this one takes it; any other as it is."""
    return _TYPED.get(override.lower() if override.startswith("ablation.") else override, override)
