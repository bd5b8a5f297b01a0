"""``task=export``: onnxruntime computes what Jittor does, for every backbone family and with every module on and off."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import cpanet
from cpanet.checkpoint.description import Description, describe
from cpanet.checkpoint.files import read_checkpoint, write_checkpoint
from cpanet.checkpoint.weights import model_tensors
from cpanet.errors import UserError
from cpanet.models import published_network
from tests.checkpoints import embedded_class, trained_run
from tests.hydra_app import REPO, run_here
from tests.sweep_runs import only

pytest.importorskip("onnx", reason="pip install '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install '.[export]'")

from cpanet.tasks.export import deviation, write_graphs  # noqa: E402

TOLERANCE = 1e-3


def checkpoint(folder: Path, backbone: str, cpp: bool, ssa: bool, **config: Any) -> Description:
    """A network that answers loudly: BatchNorms with statistics of their own, CPP's closing one not at 0."""
    prior = config.get("recipe", {}).get("prior")
    model = published_network(
        backbone, cpp=cpp, ssa=ssa, width=16, seed=3, head_init="kaiming_normal", prior=prior
    )
    tensors = model_tensors(model)
    rng = np.random.default_rng(0)
    for name, tensor in tensors.items():
        if name.endswith("running_mean"):
            tensors[name] = 0.1 * rng.standard_normal(tensor.shape).astype(np.float32)
        elif name.endswith("running_var"):
            tensors[name] = (0.5 + rng.random(tensor.shape)).astype(np.float32)
        elif name.startswith("cpp.norm"):
            tensors[name] = rng.standard_normal(tensor.shape).astype(np.float32)
    recorded = {
        "method": "cpanet",
        "backbone": {"name": backbone},
        "ablation": {"cpp": cpp, "sa": True, "ssa": ssa},
        "model": {"width": 16},
        "data": {"image_size": 64},
        **config,
    }
    path = folder / "net.safetensors"
    write_checkpoint(path, {f"model.{n}": t for n, t in tensors.items()}, {"config": recorded})
    return describe(path)


@pytest.mark.parametrize("part", ["backbone", "prototype", "decoder"])
def test_a_part_that_has_no_form_in_onnx_is_refused(tmp_path, part):
    """Whether it stands in conf/ or elsewhere: the graphs would hold the published part in its place."""
    found = checkpoint(tmp_path, "vgg16", cpp=False, ssa=False)
    config = copy.deepcopy(found.config)
    section = config["backbone"] if part == "backbone" else config["ablation"][part]
    section["_target_"] = "cpanet.models.Mine"
    with pytest.raises(UserError, match=r"published parts, and cpanet\.models\.Mine is none"):
        write_graphs(dataclasses.replace(found, config=config), 64, False, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def undecided(path: Path, image: np.ndarray) -> Path:
    """The checkpoint with its bias shifted such that half of ``image`` is marked."""
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[20:90, 30:120] = 1
    (probability,) = cpanet.load(path, threshold=0.5).fit([image], [mask]).predict_proba([image])
    middle = float(np.median(probability))
    tensors, state = read_checkpoint(path)
    tensors["model.ssa.classify.bias"] -= np.array([0, np.log(middle / (1 - middle))], np.float32)
    write_checkpoint(path, tensors, state)
    return path


BOTH = (64, 104)  # 104 is odd on the grid: 13
AREA_AND_PRIOR = {
    "protocol": {"support_mask": "area"},
    "recipe": {"features": "standard", "prior": "both_unpooled"},
}


def case(backbone, cpp, ssa, sizes=(64,), shots=(2,), slow=True, **config):
    return pytest.param(backbone, cpp, ssa, sizes, shots, config, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("backbone", "cpp", "ssa", "sizes", "shots", "config"),
    [
        case("vgg16_bn", True, True, BOTH, (2, 5), slow=False),
        case("vgg16", True, False, BOTH, (3,), slow=False, **AREA_AND_PRIOR),
        *(case("vgg16_bn", False, True, recipe={"prior": p}) for p in ("f3", "f2", "both", "f3_unpooled")),
        *(case("resnet50", False, True, recipe={"prior": p}) for p in ("f3", "f2", "both", "f3_unpooled")),
        *(case("vgg16_bn", cpp, ssa) for cpp, ssa in ((False, False), (True, False), (False, True))),
        *(case("vgg16_bn", True, True, recipe={"features": f}) for f in ("rms", "position", "standard")),
        *(case(backbone, True, True, BOTH) for backbone in ("vgg16", "resnet50", "resnet50_deep")),
        case("vgg16", True, False, protocol={"prototype_average": "batch"}, shot=5),
    ],
)
def test_onnxruntime_computes_what_jittor_does(tmp_path, backbone, cpp, ssa, sizes, shots, config):
    description = checkpoint(tmp_path, backbone, cpp, ssa, **config)
    write_graphs(description, 64, len(sizes) > 1, tmp_path)
    for size, number in itertools.product(sizes, shots):
        found = deviation(tmp_path, description, size, number)
        assert found.largest_logit > 0.01
        assert found.logits <= TOLERANCE * max(1, found.largest_logit)
        assert found.probability <= TOLERANCE


@pytest.mark.slow
def test_a_fixed_graph_refuses_other_sizes(tmp_path):
    description = checkpoint(tmp_path, "vgg16", False, False)
    write_graphs(description, 64, False, tmp_path)
    with pytest.raises(Exception, match="Got: 104 Expected: 64"):
        deviation(tmp_path, description, 104)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    cwd = tmp_path_factory.mktemp("export")
    assert run_here(cwd, "task=export", "device=cpu", f"checkpoint={trained_run()}") == 0
    return only(cwd / "outputs")


def test_the_command_writes_checks_and_records(exported):
    result = json.loads((exported / "result.json").read_text())
    assert result["status"] == "completed"
    (found,) = result["deviations"]
    assert found["size"] == 32
    assert found["logits"] <= TOLERANCE
    for name in result["files"]:
        session = onnxruntime.InferenceSession(str(exported / name))
        assert session.get_modelmeta().custom_metadata_map["image_size"] == "32"
    assert [found.shape for found in session.get_outputs()] == [["N", 2, 32, 32], ["N", 32, 32]]


def test_the_example_marks_as_the_command_does(tmp_path):
    """examples/segment_onnx.py, with onnxruntime, OpenCV and NumPy alone."""
    folder = embedded_class("patch")
    shots, queries = tmp_path / "shots", tmp_path / "queries"
    for path in (shots, queries):
        path.mkdir()
    for i in (1, 2, 3):
        shutil.copy(folder / "Images" / f"patch_{i}.png", shots / f"{i}.png")
        shutil.copy(folder / "GT" / f"patch_{i}.png", shots / f"{i}_mask.png")
    for i in (4, 5):
        shutil.copy(folder / "Images" / f"patch_{i}.png", queries / f"{i}.png")
    picture = cv2.imread(str(folder / "Images" / "patch_6.png"))
    cv2.imwrite(str(queries / "narrow.png"), picture[:90])
    cv2.imwrite(str(queries / "deep.png"), picture[..., 1].astype(np.uint16) * 64 + 1000)
    turned = Image.fromarray(np.ascontiguousarray(picture[:120, :, ::-1]))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(queries / "turned.jpg", exif=exif, quality=100)
    Image.fromarray(picture[..., ::-1]).convert("CMYK").save(queries / "cmyk.jpg", quality=100)
    (queries / "Thumbs.db").write_bytes(b"no picture")
    net = undecided(checkpoint(tmp_path, "vgg16", True, True).path, cv2.imread(str(queries / "4.png")))
    assert run_here(tmp_path, "task=export", "device=cpu", f"checkpoint={net}", "hydra.run.dir=exported") == 0
    example = REPO / "examples" / "segment_onnx.py"
    blocked = "import runpy, sys; sys.modules.update(jittor=None, cpanet=None); sys.argv = sys.argv[1:]"
    code = blocked + "; runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [str(example), "exported", "shots", "queries", "marked"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path)
    command = ("task=predict", "device=cpu", "hydra.run.dir=predicted", "predict.threshold=0.5")
    assert run_here(tmp_path, *command, f"checkpoint={net}", f"support={shots}", f"query={queries}") == 0
    marked = []
    for name in ("4.png", "5.png", "narrow.png", "deep.png", "turned.png", "cmyk.png"):
        theirs, ours = (cv2.imread(str(tmp_path / f / name), 0) for f in ("marked", "predicted/masks"))
        assert theirs.shape == ours.shape
        assert np.mean(theirs == ours) > 0.995
        marked.append(np.mean(ours > 0))
    assert 0.001 < np.mean(marked) < 0.999  # something to compare


def test_what_cannot_be_exported_is_said(tmp_path, capfd, monkeypatch):
    assert run_here(tmp_path, "task=export", "method=prototype") == 2
    assert "task=export writes trained networks" in capfd.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_here(tmp_path, "task=export", "device=cpu", f"checkpoint={trained_run()}") == 2
    assert "pip install '.[export]'" in capfd.readouterr().err
