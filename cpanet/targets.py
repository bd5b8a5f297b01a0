"""Classes that a configuration names as ``_target_``: which of them may be used, and making them.

``hydra.utils.instantiate`` imports whatever it reads. A file from elsewhere must not choose what is imported, so
:func:`make` looks first: classes of this project may be named by anything; any other class has to be named by the command
itself, by an option of ``--config-dir`` or by ``_target_`` on the command line. It also checks the arguments by the class's
annotations, and says which key is wrong.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from hydra.utils import instantiate
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from cpanet.errors import UserError

KEY = "_target_"
OWN = "cpanet."
_named: set[str] = set()


def targets_of(config: Any) -> set[str]:
    """Every ``_target_`` in plain data, Hydra's own node aside."""
    if isinstance(config, Mapping):
        here = {config[KEY]} if isinstance(config.get(KEY), str) else set()
        return here.union(*(targets_of(value) for key, value in config.items() if key != "hydra"))
    return set().union(*(targets_of(value) for value in config)) if isinstance(config, list) else set()


def allow(targets: Iterable[str]) -> None:
    """Let this process use classes that its user named."""
    _named.update(targets)


def check_recorded(config: Any, source: str) -> None:
    """Raises UserError where a record names a class that is not this project's and that nobody named here."""
    for target in sorted(targets_of(config)):
        _check(target, source)


def _check(target: str, source: str) -> None:
    if not target.startswith(OWN) and target not in _named:
        raise UserError(
            f"{source} names the class {target}, which is not part of cpanet and is not imported on a file's word. "
            "If you trust it, name it yourself, such as: --config-dir DIR backbone=OPTION."
        )


def make(
    section: Mapping[str, Any],
    base: type,
    key: str,
    about: Iterable[str] = (),
    offered: Mapping[str, Any] | None = None,
) -> Any:
    """The object that ``section`` describes: ``_target_``, called with the other keys.

    Keys in ``about`` say something about the object; they are arguments only where the class takes them. Raises
    UserError for a class that cannot be imported or is no ``base``, and for arguments that it refuses. ``offered``:
    arguments for classes that take them, where the section does not say otherwise.
    """
    found, target = class_of(section, base, key), str(section[KEY])
    signature = inspect.signature(found)
    about = set(about)
    arguments = {
        name: value
        for name, value in section.items()
        if name != KEY and (name not in about or name in signature.parameters)
    }
    for name, value in (offered or {}).items():
        if name in signature.parameters:
            arguments.setdefault(name, value)
    _check_types(found, arguments, target, key)
    refused = f"{key}: {target} refuses its arguments: {{}}. It takes {signature}."
    try:
        signature.bind(**arguments)
        return call(target, arguments)
    except (TypeError, ValueError) as error:
        raise UserError(refused.format(error)) from error


def call(target: str, arguments: Mapping[str, Any]) -> Any:
    """The object that Hydra makes of the class ``target``, which was looked at before. Raises what the class raises.

    Hydra is not given the arguments: they are values, in which nothing is to be resolved any more.
    """
    return instantiate({KEY: target, "_partial_": True})(**arguments)


def class_of(section: Mapping[str, Any], base: type, key: str) -> Any:
    """The class that ``section`` names. Raises UserError for one that cannot be imported or is no ``base``."""
    target = str(section[KEY])
    _check(target, f"{key}.{KEY}")
    found = _find(target, key)
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = getattr(base, "BASE", "") or path_of(base)
        raise UserError(f"{key}.{KEY} = {target}: must be a class that derives from {wanted}.")
    return found


def _check_types(found: type, arguments: Mapping[str, Any], target: str, key: str) -> None:
    """Raises UserError for an argument that is not of its annotation's type; what has none, or no simple one, passes."""
    try:
        hints = get_type_hints(found.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        return
    for name, value in arguments.items():
        try:
            kind = TypeAdapter(hints[name], config=ConfigDict(strict=True)) if name in hints else None
        except PydanticUserError:
            continue
        try:
            if kind is not None:
                kind.validate_python(value)
        except ValidationError as error:
            rule = str(error.errors()[0]["msg"]).replace("Input should", "must")
            raise UserError(f"{key}.{name} = {value!r}: {rule} ({target} takes it).") from None


def _find(target: str, key: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"{key}.{KEY} = {target}: there is no such class ({error}).") from error


def path_of(kind: type) -> str:
    """How a configuration names the class ``kind``."""
    return f"{kind.__module__}.{kind.__qualname__}"
