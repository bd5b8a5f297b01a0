"""Pickles read without running anything in them.

A pickle is a program: it may name any function and call it. Here it finds the few names that a file of tensors needs,
each standing for a function of this project, and no other: a file that asks for another is refused by that name.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable

from cpanet.errors import UserError

Names = Mapping[tuple[str, str], Any]
CONTAINERS: Names = {("collections", "OrderedDict"): lambda *pairs: collections.OrderedDict(*pairs)}


class RefusedPickle(Exception):
    """Names what is not on the list."""


class ListedFunction:
    """Stand-in for a listed name: it can be called and nothing else, least of all changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("a change to the reader itself")


class Marker:
    """A name that a pickle hands around without calling it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("a change to the reader itself")


class Reader(pickle.Unpickler):
    """An unpickler that knows ``names`` and no other."""

    def __init__(self, stream: io.BytesIO, names: Names, encoding: str = "utf-8") -> None:
        super().__init__(stream, encoding=encoding)
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._names[module, name]
        except KeyError:
            raise RefusedPickle(f"{module}.{name}") from None
        return found if isinstance(found, Marker) else ListedFunction(found)

    def persistent_load(self, key: Any) -> Any:
        raise ValueError("a reference to something outside the file")


@contextmanager
def reading(path: object, kind: str) -> Iterator[None]:
    """Turns errors while a pickle of ``kind`` is read into a :class:`UserError` that names ``path``."""
    try:
        yield
    except RefusedPickle as refused:
        raise UserError(
            f"{path}: refused, because loading it would call {refused}. Only files with plain tensors are read: "
            "save the model's state_dict() instead of the model, or convert it to .safetensors."
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"{path}: not a readable {kind} file ({type(error).__name__}: {error}). It may be truncated: fetch it again."
        ) from None


def state_dict(content: Any) -> dict[Any, Any]:
    """The dictionary of tensors in what a file holds, also below ``state_dict``, ``model`` or ``net``."""
    for key in ("state_dict", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary of tensors")
    return content
