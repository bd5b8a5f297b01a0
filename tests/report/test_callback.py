"""The command and the callback that write reports."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from cpanet.report.__main__ import main
from cpanet.report.callback import SweepTables
from cpanet.report.write import FILES
from tests.hydra_app import CONF
from tests.report import sweeps
from tests.shared import REPO


def config(directory, mode="MULTIRUN"):
    return OmegaConf.create({"hydra": {"mode": mode, "sweep": {"dir": str(directory)}}})


def test_after_every_job_of_a_multirun_the_table_is_there(tmp_path):
    top = sweeps.modules(tmp_path / "s", ("cpp", "full"))
    shutil.rmtree(top / "ablation=full,seed=1")
    SweepTables().on_job_end(config(top), JobReturn())
    assert "1 of 2 …" in (top / "table.md").read_text()
    sweeps.modules(tmp_path / "t", ("full",), seeds=(1,))
    shutil.copytree(tmp_path / "t" / "ablation=full,seed=1", top / "ablation=full,seed=1")
    SweepTables().on_multirun_end(config(top))
    assert "1 of 2 …" not in (top / "table.md").read_text()
    assert all((top / name).is_file() for name in FILES)


def test_a_single_run_has_no_table(tmp_path):
    SweepTables().on_job_end(config(tmp_path, "RUN"), JobReturn())
    assert not list(tmp_path.iterdir())


def test_what_goes_wrong_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        SweepTables().on_multirun_end(config(tmp_path / "file" / "below"))
        SweepTables().on_multirun_end(OmegaConf.create({}))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the tables could not be written" in caplog.text


def test_it_is_registered():
    text = (CONF / "config.yaml").read_text()
    assert "cpanet.report.callback.SweepTables" in text


def test_the_command_merges_sweeps(tmp_path, capsys):
    one = sweeps.modules(tmp_path / "one", ("cpp",))
    two = sweeps.modules(tmp_path / "two", ("full",))
    assert main([str(one), str(two), "-o", str(tmp_path / "out")]) == 0
    assert "4 runs, 4 of them completed" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_the_command_says_what_is_missing(tmp_path, capsys, where):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / where)]) == 2
    error = capsys.readouterr().err
    assert where in error
    assert "Give the directory of a multirun" in error
    assert not list((tmp_path / "empty").iterdir())


def test_the_command_needs_no_jittor(tmp_path):
    top = sweeps.modules(tmp_path / "s", ("cpp", "full"))
    program = "import sys; from cpanet.report.__main__ import main; main(sys.argv[1:]); sys.exit('jittor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(top)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
