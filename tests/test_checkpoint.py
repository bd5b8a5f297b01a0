"""Weights in and out: round trips, released and torchvision names, and files that would run code."""

from __future__ import annotations

import collections
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.oracle import fixture_keys
from cpanet.checkpoint import names
from cpanet.checkpoint.files import read_checkpoint, write_checkpoint
from cpanet.checkpoint.pth import read_pth
from cpanet.checkpoint.weights import MODEL_PREFIX, load_backbone_weights, model_tensors
from cpanet.errors import UserError
from cpanet.models import published_network
from cpanet.runtime import jt
from tests.checkpoints import TorchTensor, load_weights, named_as_torch, write_legacy, write_zip  # noqa: F401 (a fixture)
from tests.shared import shared

# ------------------------------------------------------------------ PyTorch files, written without PyTorch


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_tensors_of_a_pytorch_file(tmp_path, as_torch, write):
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    brain = np.array([0x3F80, 0xC000], dtype=np.uint16)  # 1 and −2
    content = collections.OrderedDict(
        a=TorchTensor(plain),
        b=TorchTensor(plain, transposed=True),
        c=TorchTensor(brain),
        n=TorchTensor(np.array([7])),
    )
    tensors = read_pth(write(tmp_path / "file.pth", {"state_dict": content, "epoch": 3}))
    np.testing.assert_array_equal(tensors["a"], plain)
    np.testing.assert_array_equal(tensors["b"], plain.T)
    np.testing.assert_array_equal(tensors["c"], np.array([1, -2], np.float32))
    assert tensors["n"] == 7


class _Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_file_that_would_run_code_is_refused_by_name(tmp_path, as_torch, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.pth", {"weight": TorchTensor(np.ones(2, np.float32)), "x": _Evil()})
    with pytest.raises(UserError, match=r"would call (posix|os)\.system"):
        read_pth(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_truncated_file_is_a_clear_error(tmp_path, as_torch, write, keep):
    path = write(tmp_path / "file.pth", {"weight": TorchTensor(np.ones((50, 50), np.float32))})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UserError, match=r"file\.pth"):
        read_pth(path)


def test_a_compressed_file_is_refused(tmp_path, as_torch):
    path = write_zip(tmp_path / "file.pth", {"weight": TorchTensor(np.zeros(2**20, np.float32))})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="its content is compressed"):
        read_pth(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path, as_torch):
    class Beyond(TorchTensor):
        def __reduce__(self):
            function, (storage, _, _, _, *rest) = super().__reduce__()
            return function, (storage, 0, (1000,), (1000,), *rest)

    path = write_zip(tmp_path / "file.pth", {"weight": Beyond(np.ones(4, np.float32))})
    with pytest.raises(UserError, match="beyond its storage"):
        read_pth(path)


# ------------------------------------------------------------------ models


def own_tensors(model):
    return {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(model).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], tensor) for name, tensor in expected.items())


def test_own_checkpoints_come_back_exactly(tmp_path):
    model, other = published_network("vgg16", width=16, seed=1), published_network("vgg16", width=16, seed=2)
    write_checkpoint(tmp_path / "best.safetensors", own_tensors(model), {"epoch": 3})
    assert read_checkpoint(tmp_path / "best.safetensors")[1] == {"epoch": 3}
    load_weights(other, tmp_path / "best.safetensors")
    assert_same(model_tensors(other), model_tensors(model))


def test_released_names_cover_the_released_keys():
    for backbone in ("vgg16_bn", "resnet50_deep"):
        ours = {names.from_released(key) for key in fixture_keys(backbone)} - {None}
        assert ours == set(model_tensors(published_network(backbone)))
        assert {names.to_released(name) for name in ours} <= set(fixture_keys(backbone))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_checkpoints_load(tmp_path, as_torch, prefix):
    rng = np.random.default_rng(0)
    keys = fixture_keys("vgg16_bn")
    released = {prefix + k: TorchTensor(np.asarray(rng.random(s), np.float32)) for k, s in keys.items()}
    model = published_network("vgg16_bn", width=256)
    load_weights(model, write_zip(tmp_path / "released.pth", {"state_dict": released}))
    for name, found in (("cls.0", model.sa.cls1), ("layer3.0", model.backbone.layer3[0])):
        np.testing.assert_array_equal(found.weight.numpy(), released[f"{prefix}{name}.weight"].array)


def test_every_missing_unexpected_and_misshapen_tensor_is_named_and_nothing_is_loaded(tmp_path):
    model = published_network("vgg16", width=16)
    tensors = own_tensors(published_network("vgg16", width=16, seed=9))
    del tensors["model.refine1.weight"]
    tensors["model.extra.weight"] = np.ones(3, np.float32)
    tensors["model.down_query.weight"] = np.ones((2, 2, 1, 1), np.float32)
    tensors["model.ssa.mix.weight"] = np.full_like(tensors["model.ssa.mix.weight"], np.nan)
    write_checkpoint(tmp_path / "odd.safetensors", tensors, {})
    before = model_tensors(model)
    with pytest.raises(UserError) as error:
        load_weights(model, tmp_path / "odd.safetensors")
    for part in ("missing refine1", "unexpected extra", "misshapen down_query", "not finite ssa.mix"):
        assert f"{part}.weight" in str(error.value)
    assert_same(model_tensors(model), before)


@pytest.mark.parametrize("backbone", ["vgg16", "vgg16_bn", "resnet50", "resnet50_deep"])
def test_backbone_weights_in_torchvision_names(tmp_path, backbone):
    model = published_network(backbone, width=16, seed=1)
    source = model_tensors(published_network(backbone, width=16, seed=2).backbone)
    renamed = {_torchvision(name, backbone): tensor for name, tensor in source.items()}
    vgg, resnet = ("classifier.0.weight", "features.40.weight"), ("fc.weight", "layer4.0.conv1.weight")
    for name in vgg if backbone.startswith("vgg") else resnet:  # a whole classifier has these, too
        renamed[name] = np.ones((3, 3), np.float32)
    save_file(renamed, tmp_path / "weights.safetensors")
    load_backbone_weights(model, tmp_path / "weights.safetensors")
    assert_same(model_tensors(model.backbone), source)


def _torchvision(name, backbone):
    layer, index, rest = name.split(".", 2)
    if backbone.startswith("vgg"):
        starts = (0, 7, 14, 24) if backbone == "vgg16_bn" else (0, 5, 10, 17)
        return f"features.{starts[int(layer[-1])] + int(index)}.{rest}"
    if layer == "layer0":
        return f"{['conv1', 'bn1', '', 'conv2', 'bn2', '', 'conv3', 'bn3'][int(index)]}.{rest}"
    return name


def test_weights_of_another_backbone_are_refused(tmp_path):
    other = published_network("resnet50", width=16).backbone
    save_file(model_tensors(other), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"backbone=vgg16.*Check backbone"):
        load_backbone_weights(published_network("vgg16", width=16), tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "name", ["missing.safetensors", "weights.pkl", "empty.safetensors", "text.safetensors"]
)
def test_what_is_no_weights_file_is_a_clear_error(tmp_path, name):
    for existing, content in (
        ("weights.pkl", b"x"),
        ("empty.safetensors", b""),
        ("text.safetensors", b"hello" * 9),
    ):
        (tmp_path / existing).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_weights(published_network("vgg16", width=16), tmp_path / name)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, {"model.a": np.ones(3, np.float32)}, {"epoch": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, {"model.a": np.zeros(3, np.float32)}, {"epoch": 2})
    assert read_checkpoint(path)[1] == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_the_real_vgg16_weights_load():
    model = published_network("vgg16", width=16)
    load_backbone_weights(model, shared("weights/vgg16_imagenet_to_conv4_3.safetensors"))
    rng = np.random.default_rng(0)
    features = model.features(jt.array(rng.standard_normal((1, 3, 64, 64)).astype(np.float32))).numpy()
    assert features.shape == (1, 768, 4, 4)
    assert np.isfinite(features).all()
    assert features.std() > 0
