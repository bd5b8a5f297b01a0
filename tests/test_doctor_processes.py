"""The doctor's report: precisions in processes of their own, JSON as it goes, what is kept of a process that is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cpanet.doctor import __main__ as doctor
from cpanet.doctor import machine, processes
from cpanet.doctor.checks import CheckFailed, CheckResult, Seen
from cpanet.doctor.record import DoctorRecord
from cpanet.errors import UserError
from cpanet.runtime import prepare
from cpanet.runtime.cuda.probe import GIB, CudaReport, Driver, Gpu
from cpanet.runtime.cuda.toolkit import Toolkit
from tests.shared import REPO

REPORT = CudaReport(
    True,
    "",
    Driver((13, 0), (Gpu("NVIDIA H100", 90, 80 * GIB),)),
    Toolkit(
        Path("/opt/cuda/bin/nvcc"),
        (13, 0, 88),
        Path("/opt/libcudart.so"),
        Path("/opt/libcudnn.so"),
        (9, 28, 0),
    ),
)


def wrong() -> Seen:
    raise CheckFailed("output of /home/somebody/.cache/jittor/x.cc is off by 0.5", 0.5)


CHECKS = {
    "good": lambda: Seen("deviation 1e-07", 1e-7, "asked for tf32, delivered fp32"),
    "bad": wrong,
}


@pytest.fixture
def two_checks(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "all_checks", lambda runtime: dict(CHECKS))


def test_findings_as_json(tmp_path, two_checks, monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "remedy", lambda runtime: "Remove /home/somebody/.cache/jittor and try again."
    )
    assert doctor.main(["--device", "cpu", "--json", str(tmp_path / "found.json")]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["finished"], found["ok"], found["device"], found["running"]) == (True, False, "cpu", None)
    assert {"python", "jittor", "numpy", "compiler"} <= set(found["versions"])
    good, bad = found["checks"]
    assert (good["name"], good["precision"], good["ok"], good["deviation"]) == ("good", "fp32", True, 1e-7)
    assert good["note"] == "asked for tf32, delivered fp32"
    assert (bad["ok"], bad["deviation"], bad["error"]) == (False, 0.5, "output of …/x.cc is off by 0.5")
    assert bad["remedy"] == "Remove …/jittor and try again."
    assert found["precisions"]["fp32"]["failed"] == 1
    assert str(prepare().cache_home.parent) not in (tmp_path / "found.json").read_text()
    assert "asked for tf32, delivered fp32" in capsys.readouterr().out


def test_only_some_checks(two_checks, capsys):
    assert doctor.main(["--device", "cpu", "--only", "goo"]) == 0
    assert doctor.main(["--device", "cpu", "--only", "nothing"]) == 1
    assert "No check has 'nothing' in its name" in capsys.readouterr().out


def test_what_is_done_is_kept_while_the_rest_runs(tmp_path, monkeypatch):
    file, seen = tmp_path / "found.json", []

    def look() -> Seen:
        seen.append(json.loads(file.read_text()))
        return Seen("")

    monkeypatch.setattr(doctor, "all_checks", lambda runtime: {"good": CHECKS["good"], "looks": look})
    assert doctor.main(["--device", "cpu", "--json", str(file)]) == 0
    (during,) = seen
    assert (during["finished"], during["ok"]) == (False, None)
    assert [row["name"] for row in during["checks"]] == ["good"]
    assert during["running"] == {"name": "looks", "precision": "fp32"}


def test_a_refusal_is_recorded(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert doctor.main(["--device", "cpu", "--precision", "tf32", "--json", str(file)]) == 1
    found = json.loads(file.read_text())
    assert (found["finished"], found["ok"]) == (True, False)
    assert "tf32 cannot be had on device=cpu" in found["error"]
    assert "tf32 cannot be had on device=cpu" in capsys.readouterr().out


def test_cuda_that_cannot_be_had_is_told_once(tmp_path, capfd):
    if prepare().device == "cuda":
        pytest.skip("a machine without a usable GPU is needed")
    file = tmp_path / "found.json"
    assert doctor.main(["--device", "cuda", "--json", str(file)]) == 1
    assert capfd.readouterr().out.count("device=cuda cannot be used") == 1
    assert "device=cuda cannot be used" in json.loads(file.read_text())["error"]


@pytest.mark.parametrize(
    ("asked", "device", "chosen"),
    [
        (None, "cpu", ("fp32",)),
        (None, "cuda", ("fp32", "tf32", "bf16", "fp16")),
        (["all"], "cuda", ("fp32", "tf32", "bf16", "fp16")),
        (["bf16,fp32"], "cuda", ("fp32", "bf16")),
        (["fp16", "auto"], "cuda", ("tf32", "fp16")),
    ],
)
def test_precisions_to_examine(asked, device, chosen):
    assert doctor.choose_precisions(asked, device) == chosen


def test_a_precision_that_does_not_exist():
    with pytest.raises(UserError, match="fp8"):
        doctor.choose_precisions(["fp8"], "cuda")


def test_facts_of_a_gpu():
    facts = machine.cuda_facts(REPORT)
    assert (facts["gpu"], facts["compute_capability"], facts["memory_gib"]) == ("NVIDIA H100", "9.0", 80.0)
    assert (facts["driver_cuda"], facts["toolkit"], facts["cudnn"]) == ("13.0", "13.0.88", "9.28.0")
    rows = machine.rows("cuda", ("fp32", "tf32"), doctor.versions(), REPORT)
    assert rows["GPU"] == "NVIDIA H100, 80.0 GiB, compute capability 9.0"
    assert "serves CUDA up to 13.0" in rows["driver"]
    assert rows["CUDA toolkit"].startswith("13.0.88")
    assert rows["cuDNN"].startswith("9.28.0")
    assert rows["precision"] == "fp32, tf32"


def test_facts_where_there_is_no_gpu():
    report = CudaReport(False, "CUDA 10.2 (/usr/local/cuda/bin/nvcc) is not one that Jittor builds against")
    facts = machine.cuda_facts(report)
    assert facts["reason"] == "CUDA 10.2 (…/nvcc) is not one that Jittor builds against"
    assert facts["gpu"] is facts["toolkit"] is facts["driver_cuda"] is None


def test_the_drivers_own_number(tmp_path):
    file = tmp_path / "version"
    assert machine.driver_release(file) is None
    file.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:12:20 UTC 2025\nGCC 12\n"
    )
    assert machine.driver_release(file) == "580.65.06"
    file.write_text("something else")
    assert machine.driver_release(file) is None


# ------------------------------------------------------ processes


def part(body: str) -> list[str]:
    """A stand-in for the doctor at one precision: ``record`` writes where --json says."""
    start = f"""
        import os, signal, sys
        sys.path.insert(0, {str(REPO)!r})
        from pathlib import Path
        from cpanet.doctor.checks import CheckResult
        from cpanet.doctor.record import DoctorRecord
        record = DoctorRecord(Path(sys.argv[sys.argv.index("--json") + 1]), part=True)
        sound = CheckResult("one", True, 0.1, "deviation 1e-07")
    """
    return [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(body)]


@pytest.fixture
def record(tmp_path) -> DoctorRecord:
    return DoctorRecord(tmp_path / "record.json")


SOUND = "record.add(sound, 'tf32'); record.end('tf32'); record.finish(1.0)"


def test_a_process_that_comes_to_its_end(record):
    at_once = f"assert sys.argv[-1] == {str(record.path)!r}; "  # what it finds is in the record's own file
    assert processes.examine("tf32", part(at_once + SOUND), record) is None
    found = {"ok": True, "finished": True, "checks": 1, "failed": 0, "seconds": 0.1}
    assert record.data["precisions"]["tf32"] == found
    assert not record.data["finished"]
    assert record.finish(1.0)


def test_a_process_that_crashes_keeps_what_it_found_and_names_the_check(record):
    body = "record.add(sound, 'tf32'); record.start('two', 'tf32'); os.kill(os.getpid(), signal.SIGSEGV)"
    lost = processes.examine("tf32", part(body), record)
    assert lost is not None
    assert (lost.name, lost.ok) == ("two", False)
    assert "ended by signal 11 (SIGSEGV) during this check" in lost.error
    assert [(row["name"], row["ok"]) for row in record.data["checks"]] == [("one", True), ("two", False)]
    assert not record.finish(1.0)


def test_a_process_that_does_not_start(record):
    lost = processes.examine("tf32", [sys.executable, "-c", "raise SystemExit(3)"], record)
    assert lost is not None
    assert (lost.name, lost.error) == ("start", "the process was ended with status 3")
    refusal = "record.start('start', 'tf32'); record.finish(1.0, 'no GPU'); raise SystemExit(1)"
    lost = processes.examine("bf16", part(refusal), record)
    assert lost is not None
    assert (lost.name, lost.error, record.data["error"]) == ("start", "no GPU", "")


def test_a_process_that_does_not_end_is_ended(record, monkeypatch):
    monkeypatch.setattr(processes, "LIMIT", 5)
    body = "record.start('two', 'tf32'); import time; time.sleep(600)"
    lost = processes.examine("tf32", part(body), record)
    assert lost is not None
    assert "ended by signal 9 (SIGKILL)" in lost.error


def test_every_precision_has_its_verdict(tmp_path, monkeypatch, capfd):
    """The whole command as on CUDA, with stand-ins for the processes: the first is sound, the second dies."""
    bodies = {"fp32": SOUND.replace("tf32", "fp32"), "tf32": "os.kill(os.getpid(), signal.SIGKILL)"}
    monkeypatch.setattr(doctor, "probe_cuda", lambda: REPORT)
    monkeypatch.setattr(processes, "command", lambda device, precision, *rest: part(bodies[precision]))
    file = tmp_path / "found.json"
    assert doctor.main(["--precision", "fp32,tf32", "--json", str(file)]) == 1
    printed = capfd.readouterr().out
    assert "All 1 checks passed on cuda at fp32" in printed
    assert "1 of 1 checks failed on cuda at tf32" in printed
    assert printed.splitlines()[-1] == "Failed: tf32."
    found = json.loads(file.read_text())
    assert (found["finished"], found["ok"], found["cuda"]["gpu"]) == (True, False, "NVIDIA H100")
    assert {name: p["ok"] for name, p in found["precisions"].items()} == {"fp32": True, "tf32": False}


def test_a_real_process_on_the_cpu(record):
    words = processes.command("cpu", "fp32", ["relu"], False)
    assert processes.examine("fp32", words, record) is None
    assert {row["name"] for row in record.data["checks"]} >= {"relu", "relu with channel dropout"}
    assert record.finish(1.0)


def test_a_killed_doctor_leaves_what_it_had_found(tmp_path):
    file = tmp_path / "found.json"

    def found() -> list[dict]:
        return json.loads(file.read_text())["checks"] if file.exists() else []

    words = [sys.executable, "-m", "cpanet.doctor", "--device", "cpu", "--json", str(file), "--only", "relu"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=REPO)
    deadline = time.monotonic() + 120
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert found()[0]["ok"]


def test_a_row_is_a_result_at_a_precision():
    record = DoctorRecord(None)
    record.add(CheckResult("x", True, 0.5, "detail", deviation=1e-3), "fp32")
    told = {
        "name": "x",
        "precision": "fp32",
        "ok": True,
        "seconds": 0.5,
        "detail": "detail",
        "deviation": 1e-3,
    }
    assert record.data["checks"] == [{**told, "error": "", "remedy": "", "note": ""}]
