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

from cpanet.checkpoint.restricted import CONTAINERS, Names, Reader, RefusedPickle, tensors_of

MARK = b"HCAJSLHD"
SHA1_BYTES = 20
LIMIT = 4 << 30  # bytes of one file
_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Type:
    """A NumPy type: a letter and a number of bytes; the byte order comes after it."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if text.lstrip("<=|") not in _KINDS:
            raise RefusedPickle(f"numpy.dtype({text[:20]!r})")
        self.type = np.dtype("<" + text.lstrip("<=|"))

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5:
            raise ValueError("a type of another form")
        _, order, *fields = state
        if order not in ("<", "|", "=", b"<", b"|", b"="):
            raise ValueError("a type in another byte order")
        if any(part is not None for part in fields[:3]):
            raise RefusedPickle("numpy.dtype with fields")


class _Array:
    """An array; most are made empty, and their content comes after them."""

    def __init__(self, content: Any, kind: Any, shape: Any, order: Any = "C") -> None:
        if isinstance(content, str):  # of Python 2
            content = content.encode("latin-1")
        if not (
            isinstance(kind, _Type) and isinstance(content, (bytes, bytearray)) and isinstance(shape, tuple)
        ):
            raise ValueError("an array without type, shape or content")
        right = all(type(n) is int and n >= 0 for n in shape)
        if not right or math.prod(shape) * kind.type.itemsize != len(content):
            raise ValueError("an array that is not as large as it says")
        self._value = np.frombuffer(content, kind.type).reshape(shape, order="F" if order == "F" else "C")

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self._value = _Array(content, kind, shape, "F" if fortran else "C").array()

    def array(self) -> np.ndarray:
        return self._value


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
    **dict.fromkeys((("builtins", "bytes"), ("__builtin__", "bytes")), _no_bytes),
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): None,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", lambda *_: _Array(b"", _Type("f4"), (0,))),
            ("multiarray", "scalar", lambda kind, content=b"": _Array(content, kind, ())),
            ("numeric", "_frombuffer", _Array),
        )
    },
    **dict.fromkeys(
        (("jittor", "jittor_core.Var"), ("jittor_core", "Var"), ("jittor", "Var")),
        lambda value=None, *_: value,
    ),
}


def read_pkl(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a Jittor ``.pkl`` file, by name; see :func:`cpanet.checkpoint.restricted.tensors_of`."""
    return tensors_of(path, _load, _Array, "Jittor", "what jt.save wrote of a state_dict()")


def _load(path: Path) -> Any:
    if path.stat().st_size > LIMIT:
        raise ValueError("larger than 4 GiB")
    content = path.read_bytes()
    if content.endswith(MARK):
        end = len(content) - len(MARK)
        content, checksum = content[: end - SHA1_BYTES], content[end - SHA1_BYTES : end]
        if hashlib.sha1(content).digest() != checksum:
            raise ValueError("its checksum is another")
    stream = io.BytesIO(content)
    names = {**_NAMES, ("_codecs", "encode"): _Bytes(len(content))}
    # latin-1: what Python 2 wrote as text may be the content of an array
    found = Reader(stream, names, encoding="latin-1").load()
    if stream.read(1):
        raise ValueError("something follows the pickle")
    return found
