"""Pickles read without running anything in them.

A pickle is a program: it may name any function and call it. Here it finds the few names that a file of tensors needs,
each standing for a function of this project, and no other: a file that asks for another is refused by that name.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from cpanet.errors import UserError

Names = Mapping[tuple[str, str], Optional[Callable[..., Any]]]  # None: handed around, never called
CONTAINERS: Names = {("collections", "OrderedDict"): lambda *pairs: collections.OrderedDict(*pairs)}


class RefusedPickle(Exception):
    """Names what is not on the list."""


class Listed:
    """Stand-in for a listed name: it can be called, where it has a function, and nothing else, least of all changed."""

    __slots__ = ("_function", "name")

    def __init__(self, name: str, function: Callable[..., Any] | None) -> None:
        self.name, self._function = name, function

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            raise RefusedPickle(self.name)
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("a change to the reader itself")


def _outside(key: Any) -> Any:
    raise ValueError("a reference to something outside the file")


class Reader(pickle.Unpickler):
    """An unpickler that knows ``names`` and no other; ``stored`` gives what lies beside the pickle."""

    def __init__(
        self,
        stream: io.BytesIO,
        names: Names,
        stored: Callable[[Any], Any] = _outside,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(stream, encoding=encoding)
        self._names, self._stored = names, stored

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise RefusedPickle(f"{module}.{name}")
        return Listed(f"{module}.{name}", self._names[module, name])

    def persistent_load(self, key: Any) -> Any:
        return self._stored(key)


def tensors_of(
    path: Path, load: Callable[[Path], Any], tensor: type[Any], kind: str, expected: str
) -> dict[str, np.ndarray]:
    """Arrays of the ``tensor`` objects, by name, in the dictionary that ``load`` reads from a file of ``kind``.

    A dictionary that holds it under ``state_dict``, ``model`` or ``net`` is looked into. Raises :class:`UserError` for
    anything but tensors in plain containers, naming what was refused.
    """
    try:
        content = load(path)
        for key in ("state_dict", "model", "net"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary of tensors")
        tensors = {str(name): value.array() for name, value in content.items() if isinstance(value, tensor)}
    except RefusedPickle as refused:
        raise UserError(
            f"{path}: refused, because loading it would call {refused}. Only files with plain tensors are read: "
            "save the model's state_dict() instead of the model, or convert it to .safetensors."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Give another file.") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"{path}: not a readable {kind} file ({type(error).__name__}: {error}). It may be truncated: fetch it again."
        ) from None
    if not tensors:
        raise UserError(f"{path}: no tensors in this file. Expected {expected}.")
    return tensors
