"""PyTorch ``.pth`` files read without PyTorch and without running anything in them.

A ``.pth`` file is a pickle, read by ``restricted``: ordered dictionaries, plain containers, and the functions that
rebuild a tensor from a storage; any other name in the file is refused.
Both layouts are read: the zip archive of PyTorch ≥ 1.6 and the older sequence of pickles (torchvision's VGG files).
Format: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (facts only).
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cpanet.checkpoint.restricted import CONTAINERS, Listed, Names, Reader, tensors_of

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),  # widened to float32 below
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_LIMIT = 4 << 30  # bytes of one storage: a larger claim is a damaged or hostile file


class _Storage:
    """A flat array that a tensor is a view of; ``data`` is filled in once it has been read."""

    def __init__(self, kind: str, size: int) -> None:
        self.kind, self.size = kind, size
        self.data: np.ndarray | None = None


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def array(self) -> np.ndarray:
        data = self.storage.data
        if data is None:
            raise ValueError("a tensor's storage is missing from the file")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if self.offset < 0 or any(n < 0 for n in self.shape) or any(s < 0 for s in self.strides):
            raise ValueError("a tensor has a negative size")
        if 0 not in self.shape and last >= data.size:
            raise ValueError("a tensor reaches beyond its storage")
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, [s * data.itemsize for s in self.strides], writeable=False
        )
        if self.storage.kind == "BFloat16Storage":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.array(view)


_NAMES: Names = {
    **CONTAINERS,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", kind): None for kind in _DTYPES},
}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a ``.pth`` state dict, by name; see :func:`cpanet.checkpoint.restricted.tensors_of`."""
    return tensors_of(path, _load, _Tensor, "PyTorch", "a PyTorch state dict")


def _load(path: Path) -> Any:
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)


def _new_storage(key: Any, cache: dict[str, _Storage]) -> _Storage:
    if not isinstance(key, tuple) or not key or key[0] != "storage":
        raise ValueError("an unknown kind of reference")
    kind = key[1].name.rpartition(".")[2] if isinstance(key[1], Listed) else ""
    name, size = str(key[2]), int(key[4])
    if kind not in _DTYPES or not 0 <= size * _DTYPES[kind].itemsize <= _LIMIT:
        raise ValueError(f"a storage of kind {kind or key[1]!r} with {size} elements")
    return cache.setdefault(name, _Storage(kind, size))


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its content is compressed, which PyTorch never does")
        records = [n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(records) != 1:
            raise ValueError("no data.pkl in the archive")
        prefix = records[0][: -len("data.pkl")]
        cache: dict[str, _Storage] = {}

        def stored(key: Any) -> _Storage:
            storage = _new_storage(key, cache)
            if storage.data is None:
                info = archive.getinfo(f"{prefix}data/{key[2]}")
                if info.file_size != storage.size * _DTYPES[storage.kind].itemsize:
                    raise ValueError(f"storage {key[2]} has an unexpected size")
                storage.data = np.frombuffer(archive.read(info), _DTYPES[storage.kind])
            return storage

        return Reader(io.BytesIO(archive.read(records[0])), _NAMES, stored).load()


def _read_legacy(path: Path) -> Any:
    if path.stat().st_size > _LIMIT:
        raise ValueError("larger than 4 GiB")
    stream = io.BytesIO(path.read_bytes())
    cache: dict[str, _Storage] = {}

    def stored(key: Any) -> _Storage:
        storage = _new_storage(key, cache)
        if len(key) > 5 and key[5] is not None:
            raise ValueError("a view of a storage, which only very old files hold")
        return storage

    def unpickle() -> Any:
        return Reader(stream, _NAMES, stored).load()

    if unpickle() != _LEGACY_MAGIC:
        raise ValueError("no PyTorch file")
    unpickle()  # protocol version
    system = unpickle()
    if not system.get("little_endian", True) or sys.byteorder != "little":
        raise ValueError("written on a big-endian machine")
    content = unpickle()
    for key in unpickle():
        storage = cache[str(key)]
        (size,) = struct.unpack("<q", stream.read(8))
        dtype = _DTYPES[storage.kind]
        raw = stream.read(size * dtype.itemsize) if size == storage.size else b""
        if len(raw) != storage.size * dtype.itemsize:
            raise ValueError(f"storage {key} is cut short")
        storage.data = np.frombuffer(raw, dtype)
    return content
