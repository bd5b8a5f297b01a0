"""Jittor's ``.pkl`` files: tensors are read, whatever else is in them is refused by name."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cpanet.checkpoint.pkl import MARK, read_pkl
from cpanet.checkpoint.weights import model_tensors
from cpanet.errors import UserError
from cpanet.models import published_network
from cpanet.runtime import jt
from tests.checkpoints import load_weights

ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.ones(3, np.float16),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "whole": np.arange(4),
    "truth": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
    "one": np.float32(3),
    "none": np.zeros((0, 3), np.float32),
}


def with_checksum(content: bytes) -> bytes:
    return content + hashlib.sha1(content).digest() + MARK


def read(folder, content):
    (folder / "a.pkl").write_bytes(content)
    return read_pkl(folder / "a.pkl")


def test_what_jittor_wrote_comes_back(tmp_path):
    variables = {"weight": jt.array(ARRAYS["float"]), "whole": jt.array(np.arange(3, dtype=np.int32))}
    jt.save({**variables, "epoch": 3, "names": ["a", "b"]}, str(tmp_path / "a.pkl"))
    found = read_pkl(tmp_path / "a.pkl")
    assert found.keys() == variables.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(found[name], value.numpy())
        assert found[name].dtype == value.numpy().dtype


def test_a_model_of_jittor_is_loaded(tmp_path):
    model, other = published_network("vgg16", width=16, seed=1), published_network("vgg16", width=16, seed=2)
    model.save(str(tmp_path / "model.pkl"))
    load_weights(other, tmp_path / "model.pkl")
    found = model_tensors(other)
    assert all(np.array_equal(found[n], t) for n, t in model_tensors(model).items())


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_arrays_of_every_protocol(tmp_path, protocol):
    content = {"state_dict": collections.OrderedDict(ARRAYS)}
    found = read(tmp_path, pickle.dumps(content, protocol))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a shell command": (Calls(os.system, "touch ran"), r"(posix|os)\.system"),
    "a process": (Calls(subprocess.Popen, "touch ran"), r"\w+\.Popen"),
    "eval": (Calls(eval, "open('ran', 'w')"), r"\w+\.eval"),
    "exec": (Calls(exec, "open('ran', 'w')"), r"\w+\.exec"),
    "an attribute": (Calls(getattr, os, "system"), r"\w+\.getattr"),
    "a file": (Calls(open, "ran", "w"), r"\w+\.open"),
    "another class": (Path("ran"), r"pathlib\S*\.\w*Path"),
    "objects in an array": (np.array([Calls(os.system, "touch ran")], dtype=object), r"numpy\.dtype\('O8'\)"),
    "an array of records": (np.zeros(1, [("a", "f4")]), r"numpy\.dtype\('V4'\)"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_anything_else_is_refused_by_name_and_not_run(tmp_path, monkeypatch, case, protocol):
    monkeypatch.chdir(tmp_path)
    value, name = HOSTILE[case]
    try:
        content = pickle.dumps({"weight": ARRAYS["float"], "x": value}, protocol)
    except TypeError:  # a module cannot be pickled, so write by hand what would fetch its attribute
        content = b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR."
    for data in (content, with_checksum(content)):
        with pytest.raises(UserError, match=f"refused, because loading it would call {name}"):
            read(tmp_path, data)
    assert not (tmp_path / "ran").exists()


def test_the_reader_itself_cannot_be_changed(tmp_path):
    """BUILD sets attributes of whatever lies on the stack, also of a function that was found."""
    content = b"cnumpy\ndtype\n}S'_function'\nS'x'\nsb."
    with pytest.raises(UserError, match="refused, because loading it would call a change to the reader"):
        read(tmp_path, content)


@pytest.mark.parametrize("keep", [0, 1, 40, -40, -1])
def test_a_damaged_file_is_a_clear_error(tmp_path, keep):
    content = with_checksum(pickle.dumps({"weight": ARRAYS["float"]}, 4))
    with pytest.raises(UserError, match=r"a\.pkl: not a readable Jittor file"):
        read(tmp_path, content[:keep])


def test_a_changed_file_is_found_by_its_checksum(tmp_path):
    content = bytearray(with_checksum(pickle.dumps({"weight": ARRAYS["float"]}, 4)))
    content[-40] ^= 1
    with pytest.raises(UserError, match="its checksum is another"):
        read(tmp_path, bytes(content))


def test_a_file_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    """A text of 1 MB, made bytes of a thousand times."""
    text, calls = b"V" + b"a" * 2**20 + b"\np1\n", b"c_codecs\nencode\n(g1\nVlatin1\ntR" * 1000
    with pytest.raises(UserError, match="unpacks to more than it holds"):
        read(tmp_path, text + b"0(" + calls + b"t.")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, "text"])
def test_a_file_without_tensors_is_said_to_be_one(tmp_path, content):
    with pytest.raises(UserError, match="tensors"):
        read(tmp_path, pickle.dumps(content))
