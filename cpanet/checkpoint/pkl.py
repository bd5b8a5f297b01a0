"""Jittor's ``.pkl`` files read without Jittor and without running anything in them.

``jt.save`` writes a pickle, its SHA-1 and the letters ``HCAJSLHD``; each tensor in it is a call of ``jittor_core.Var``
on a NumPy array, which NumPy pickles as an empty array and its content. Files of plain NumPy arrays are read too.
Format: jittor/__init__.py of Jittor 1.3.11, and https://numpy.org/neps/nep-0001-npy-format.html for the types (facts only).
"""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from cpanet.checkpoint.restricted import CONTAINERS, Marker, Names, Reader, RefusedPickle, reading, state_dict
from cpanet.errors import UserError

MARK = b"HCAJSLHD"
SHA1_BYTES = 20
LIMIT = 4 << 30  # bytes of one file
_KINDS = {
    f"{kind}{size}"
    for kind, sizes in {"f": "248", "i": "1248", "u": "1248", "b": "1"}.items()
    for size in sizes
}


class _Type:
    """A NumPy type: a letter and a number of bytes; the byte order comes after it."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if text.lstrip("<=|") not in _KINDS:
            raise RefusedPickle(f"numpy.dtype({text[:20]!r})")
        self.type = np.dtype("<" + text.lstrip("<=|"))

    def __setstate__(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or state[1] not in ("<", "|", "=", b"<", b"|", b"=")
        ):
            raise ValueError("a type in another byte order")
        if any(part is not None for part in state[2:5]):
            raise RefusedPickle("numpy.dtype with fields")


class _Array:
    """An array, empty until its content comes."""

    def __init__(self) -> None:
        self.value = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.value = _array(content, kind, shape, "F" if fortran else "C")


def _array(content: Any, kind: Any, shape: Any, order: str = "C") -> np.ndarray:
    if isinstance(content, str):  # of Python 2
        content = content.encode("latin-1")
    if (
        not isinstance(kind, _Type)
        or not isinstance(content, (bytes, bytearray))
        or not isinstance(shape, tuple)
    ):
        raise ValueError("an array without type, shape or content")
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * kind.type.itemsize != len(
        content
    ):
        raise ValueError("an array that is not as large as it says")
    return np.frombuffer(content, kind.type).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if not isinstance(kind, Marker):
        raise ValueError("an array of an unknown kind")
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.value = _array(content, kind, shape, str(order))
    return array


def _scalar(kind: Any, content: Any = b"") -> _Array:
    return _from_buffer(content, kind, ())


def _variable(value: Any = None, *_: Any) -> Any:
    return value


class _Bytes:
    """How an older protocol writes bytes: a call that makes them of a text, in all no more than the file holds."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise RefusedPickle("_codecs.encode of something other than bytes")
        self.left -= len(text)
        if self.left < 0:
            raise ValueError("it unpacks to more than it holds")
        return text.encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    """How an older protocol writes no bytes at all."""
    if arguments:
        raise RefusedPickle("builtins.bytes")
    return b""


_NAMES: Names = {
    **CONTAINERS,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): Marker("numpy.ndarray"),
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    **dict.fromkeys((("jittor", "jittor_core.Var"), ("jittor_core", "Var"), ("jittor", "Var")), _variable),
}


def read_pkl(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a Jittor ``.pkl`` file, by name.

    A dictionary that holds the tensors under ``state_dict``, ``model`` or ``net`` is looked into. Raises
    :class:`UserError` for anything but tensors in plain containers, naming what was refused.
    """
    with reading(path, "Jittor"):
        if path.stat().st_size > LIMIT:
            raise ValueError("larger than 4 GiB")
        content = path.read_bytes()
        if content.endswith(MARK):
            content, checksum = (
                content[: -len(MARK) - SHA1_BYTES],
                content[-len(MARK) - SHA1_BYTES : -len(MARK)],
            )
            if hashlib.sha1(content).digest() != checksum:
                raise ValueError("its checksum is another")
        stream = io.BytesIO(content)
        names = {**_NAMES, ("_codecs", "encode"): _Bytes(len(content))}
        # latin-1: what Python 2 wrote as text may be the content of an array
        found = state_dict(Reader(stream, names, encoding="latin-1").load())
        if stream.read(1):
            raise ValueError("something follows the pickle")
        tensors = {str(name): value.value for name, value in found.items() if isinstance(value, _Array)}
    if not tensors:
        raise UserError(f"{path}: no tensors in this file. Expected what jt.save wrote of a state_dict().")
    return tensors
