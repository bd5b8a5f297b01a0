"""Small checkpoints, files as PyTorch writes them, and folders of pictures for tests of what uses them."""

from __future__ import annotations

import atexit
import collections
import functools
import io
import pickle
import shutil
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cpanet.checkpoint.weights import assign, network_tensors
from cpanet.data.synthetic import ensure
from tests.hydra_app import compose
from tests.sweep_runs import TINY


@functools.cache
def trained_run(*overrides: str) -> Path:
    """A run directory of a network trained for a moment on the embedded set; made once in a process."""
    from cpanet.tasks.train import run

    directory = Path(tempfile.mkdtemp(prefix="cpanet-run-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    run(compose(*TINY, *overrides), directory)
    return directory


def embedded_class(name: str = "Steel_Sc") -> Path:
    """A class folder of the embedded set, with ``Images/`` and ``GT/``."""
    return ensure() / name


def load_weights(model, path):
    """Load a whole network, its auxiliary branch too."""
    assign(model, network_tensors(path), str(path))


# ------------------------------------------------------------------ PyTorch files, written without PyTorch


class _Storage:
    def __init__(self, array):
        self.array = array


class FloatStorage:
    pass


class HalfStorage:
    pass


class BFloat16Storage:
    pass


class LongStorage:
    pass


KINDS = {"float32": FloatStorage, "float16": HalfStorage, "uint16": BFloat16Storage, "int64": LongStorage}


def _rebuild_tensor_v2(*arguments):
    raise AssertionError("only pickled by name")


class TorchTensor:
    """Pickles as PyTorch's tensors do: a call of ``torch._utils._rebuild_tensor_v2`` on a stored array."""

    def __init__(self, array, transposed=False):
        self.array, self.transposed = np.asarray(array), transposed

    def __reduce__(self):
        shape = self.array.shape
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        if self.transposed:
            shape, strides = shape[::-1], strides[::-1]
        arguments = (_Storage(self.array), 0, shape, strides, False, collections.OrderedDict())
        return _rebuild_tensor_v2, arguments


class _Pickler(pickle.Pickler):
    def __init__(self, stream):
        super().__init__(stream, protocol=2)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        self.storages.append(value.array)
        kind = KINDS[str(value.array.dtype)]
        return ("storage", kind, str(len(self.storages) - 1), "cpu", value.array.size)


class _LegacyPickler(_Pickler):
    def persistent_id(self, value):
        key = super().persistent_id(value)
        return None if key is None else (*key, None)


@pytest.fixture(name="as_torch")
def named_as_torch(monkeypatch):
    """Modules of PyTorch's names, so that pickles refer to them; PyTorch itself is not needed."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in KINDS.values():
        setattr(torch, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", "torch")
    monkeypatch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.Tensor = np.ndarray  # which tensorboardX asks for, where it is imported under this
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write_zip(path, content):
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for i, array in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    return path


def write_legacy(path, content):
    with open(path, "wb") as stream:
        pickle.dump(0x1950A86A20F9469CFC6C, stream, protocol=2)
        pickle.dump(1001, stream, protocol=2)
        pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, stream, protocol=2)
        body = io.BytesIO()
        pickler = _LegacyPickler(body)
        pickler.dump(content)
        stream.write(body.getvalue())
        pickle.dump([str(i) for i in range(len(pickler.storages))], stream, protocol=2)
        for array in pickler.storages:
            stream.write(np.int64(array.size).tobytes() + array.tobytes())
    return path
