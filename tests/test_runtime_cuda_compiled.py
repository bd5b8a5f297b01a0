"""CUDA 13 compiled with NVIDIA's real compiler and headers, and run up to the GPU, for which there are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import gpuless
from cpanet.runtime import prepare
from cpanet.runtime.cuda import patches
from cpanet.runtime.cuda.toolkit import Toolkit, find_toolkit
from tests.shared import REPO

pytestmark = pytest.mark.slow
EXTENSIONS = ("cublas", "cudnn", "curand", "cufft", "cusparse", "cub")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A function that runs Python with stand-ins for CUDA's libraries; ``folder`` is where they are."""
    machine = {name: value for name, value in os.environ.items() if name != "nvcc_path"}
    toolkit = find_toolkit(machine)
    if not isinstance(toolkit, Toolkit) or not toolkit.assembled or not toolkit.complete:
        pytest.skip("CUDA 13's compiler and headers are not installed: pip install '.[cuda]'")
    folder = tmp_path_factory.mktemp("gpuless")
    home = str(prepare("cpu").cache_home.parent.parent)
    environ = {**gpuless.build(toolkit, folder), "PYTHONPATH": str(REPO), "JITTOR_HOME": home}

    def run(*arguments: str, cwd=REPO) -> subprocess.CompletedProcess:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=1800)

    run.folder = folder
    return run


def test_the_core_and_all_extensions_are_built(stand_ins):
    code = f"""
import json
from cpanet.runtime import jt, prepare
runtime = prepare("cuda")
extern = jt.compile_extern
print(json.dumps({{
    "device": runtime.device, "patched": runtime.patched, "versions": runtime.versions, "level": jt.flags.use_tensorcore,
    "built": [name for name in {EXTENSIONS} if getattr(extern, name + "_ops") is not None],
    "architectures": list(jt.flags.cuda_archs), "package": jt.__file__,
}}))
"""
    done = stand_ins("-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["device"], found["patched"], found["level"]) == ("cuda", True, 1)
    assert found["built"] == list(EXTENSIONS)
    assert found["architectures"] == [90]
    assert found["versions"]["gpu"].startswith("stand-in, 9.0")
    assert found["versions"]["cudnn"].startswith("9.")
    assert not found["package"].startswith(str(patches.installed()))


def test_training_and_evaluation_compile_and_launch(stand_ins, tmp_path):
    """The whole command: what it computes is nothing, but every kernel is compiled, loaded and launched."""
    run = ("device=cuda", "profile=tiny", "backbone=vgg16", "data=embedded", f"hydra.run.dir={tmp_path}")
    done = stand_ins("run.py", *run)
    assert done.returncode == 0, done.stderr[-3000:]
    recorded = json.loads((tmp_path / "result.json").read_text())
    assert recorded["device"] == "stand-in"
    assert recorded["versions"]["gpu"].startswith("stand-in")
    assert recorded["versions"]["cuda"].startswith("13.")


def test_a_training_step_does_not_wait_for_the_device(stand_ins, tmp_path):
    """Losses are fetched for several steps at once; until then the host only launches."""
    from benchmarks.workload import Workload

    workload = Workload(backbone="vgg16", size=32, width=16, device="cuda", precision="tf32")
    options = {"counter": str(gpuless.counter(stand_ins.folder)), "warmup": 2, "steps": 8}
    request, result = tmp_path / "request.json", tmp_path / "result.json"
    asked = {"side": "project", "job": "calls", "workload": vars(workload), "options": options}
    request.write_text(json.dumps(asked))
    done = stand_ins("-m", "benchmarks.worker", str(request), str(result))
    assert done.returncode == 0, done.stderr[-3000:]
    calls = json.loads(result.read_text())["calls"]
    assert calls["kernel launch"] > 8 * 100
    assert calls["cudnnConvolutionForward"] % 8 == calls["cudnnConvolutionBackwardFilter"] % 8 == 0
    assert "cudnnFindConvolutionForwardAlgorithmEx" not in calls, "algorithms are looked for once"
    # main, auxiliary and total loss, sum of gradients; each waits for what was launched before, after eight steps
    assert calls["copy to host"] == 4 * 8
    assert "cudaDeviceSynchronize" not in calls
    assert calls["copy to device"] <= 5 * 8  # images and masks of queries and supports, dropout masks


def test_a_device_that_computes_nothing_is_found_out(stand_ins, tmp_path):
    """Every operator is compiled for CUDA, and the doctor sees that its numbers are wrong."""
    report = tmp_path / "doctor.json"
    done = stand_ins("-m", "cpanet.doctor", "--device", "cuda", "--precision", "tf32", "--json", str(report))
    assert done.returncode == 1, done.stderr[-3000:]
    checks = json.loads(report.read_text())["checks"]
    assert len(checks) > 30
    assert not [c["name"] for c in checks if c["ok"]]
    assert not [c["error"] for c in checks if "Error" in c["error"]], (
        "that is no wrong number but a failure to compile"
    )
