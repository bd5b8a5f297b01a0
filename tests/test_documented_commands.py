"""Every command that README and docs show: composed, checked and handed over as typed; the small ones also really run.

Training and other tasks are replaced by a recorder here; ``-m slow`` runs them, with ``profile=tiny``.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cpanet.checkpoint.files import write_checkpoint
from cpanet.data.catalog import METAL8
from tests.datasets import write_folder
from tests.hydra_app import REPO, compose, run_here, run_recorded
from tests.report import sweeps
from tests.sweep_runs import TINY
from tests.test_data_import import write_labelme

PAGES = [*sorted(REPO.glob("README*.md")), *sorted((REPO / "docs").rglob("*.md"))]
STARTS = ("python ", "tensorboard ", "pip install ")
SMALL = (*(word for word in TINY if not word.startswith("backbone=")), "evaluate.episodes=4")
ELSEWHERE = ("joblib", "submitit_local", "submitit_slurm", "optuna")  # launchers that leave this process
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit": "hydra_plugins.hydra_submitit_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
}


def commands() -> list[str]:
    """Each command once, without its comment: of code blocks, and of `code` within a sentence or a table."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
        blocks = [block for language, block in fence.findall(text) if language in ("", "bash", "sh")]
        sentences = fence.sub("", text)
        blocks += re.findall(r"^ {4}(\S.*)$", sentences, re.MULTILINE)
        blocks += re.findall(r"`([^`\n]+)`", sentences)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            for part in re.sub(r"\s#.*$", "", line.strip()).split(" && "):
                if part.startswith(STARTS):
                    found[part.strip()] = None
    return [command for command in found if not any(general in command for general in GENERAL)]


GENERAL = ("key=a,b", "build metal8 …", "build metal8 ...")  # how commands look, no commands
COMMANDS = commands()
RUN = [c for c in COMMANDS if c.startswith("python run.py")]
TRAINED = [c for c in RUN if "task=" not in c and "--" not in c and not any(word in c for word in ELSEWHERE)]
MODULES = [c for c in COMMANDS if re.match(r"python -m (cpanet|benchmarks)", c)]
SWEEPS = [c for c in RUN if " -m " in c]
REST = [c for c in COMMANDS if c not in RUN and c not in MODULES]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Stand-ins for FILE, DIR and so on: a checkpoint without weights, a data set, a sweep with its records."""
    top = tmp_path_factory.mktemp("places")
    run = top / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_checkpoint(run / "checkpoints" / "best.safetensors", {}, {"config": compose(*SMALL).model_dump()})
    pictures = write_folder(top / "pictures")
    return {
        "run": run,
        "class": pictures / "a",
        "folder": pictures,
        "metal8": write_folder(top / "metal8", METAL8.classes, 6),
        "sweep": sweeps.modules(top / "sweep"),
    }


def filled(command: str, places: dict[str, Path]) -> list[str]:
    """The arguments of ``command`` with its capitals and ellipses replaced."""
    replaced = {
        r"checkpoint=\S+": f"checkpoint={places['run']}",
        r"support=\S+": f"support={places['class']}",
        r"clean=\S+": f"clean={places['class'] / 'Images'}",
        r"""query=("[^"]*"|\S+)""": f"query={places['folder']}",
        r"backbone\.weights=FILE": "backbone.weights=random",
        r"data\.root=DIR": f"data.root={places['folder']}",
    }
    for pattern, value in replaced.items():
        command = re.sub(rf"(?<=\s){pattern}", value, command)
    arguments = shlex.split(command)[2:]
    if "data=metal8" in arguments:
        arguments.append(f"data.root={places['metal8']}")
    return arguments


@pytest.fixture(autouse=True)
def any_processor_has_bf16(monkeypatch):
    """A command that asks for ``precision=bf16`` means a processor that has it; the suite imitates its rounding on all."""
    monkeypatch.setenv("CPANET_BF16", "emulate")


def planned(command: str) -> Any:
    """``command`` as a parameter; to plan a sweep takes seconds, so all but the first are slow."""
    return pytest.param(command, marks=[pytest.mark.slow] if command in SWEEPS[1:] else [])


@pytest.mark.parametrize("command", [planned(command) for command in RUN])
def test_run_py_takes_it_as_typed(command, places, tmp_path, capsys):
    for word, module in PLUGINS.items():
        if word in command:
            pytest.importorskip(module, reason="pip install -e '.[cluster,optuna]'")
    if "…" in command or "resume=outputs" in command:
        pytest.skip("goes on with a run that has to be there; test_they_go_on has one")
    arguments = filled(command, places)
    if "--help" in arguments or "--cfg" in arguments:
        assert run_here(tmp_path, *arguments) == 0
        assert "backbone" in capsys.readouterr().out
        return
    if any(word in command for word in ELSEWHERE):
        here = [a for a in arguments if a != "-m" and "interval(" not in a]
        assert run_here(tmp_path, *here, "--cfg", "hydra") == 0
        return
    if "-m" in arguments:
        if any(a.startswith("sweep=") for a in arguments):  # one seed stands for several
            arguments = [a for a in arguments if not a.startswith("seed=")] + ["seed=0"]
        jobs: list = []
        launch = "hydra._internal.core_plugins.basic_launcher.BasicLauncher.launch"
        with mock.patch(launch, lambda self, batch, **_: jobs.extend(batch) or []):
            assert run_here(tmp_path, *arguments) in (0, 1)  # 1: planned and checked, and none was run
        assert len(jobs) >= 2
        return
    if "task=" not in command:
        status, recorded = run_recorded(tmp_path, *arguments)
        assert (status, len(recorded)) == (0, 1)
        return
    with mock.patch("cpanet.tasks.run", return_value=0.5) as task:
        assert run_here(tmp_path, *arguments) == 0
    assert f"task={task.call_args.args[0].task}" in command


class Parsed(Exception):
    """The arguments were understood."""


@pytest.mark.parametrize("command", MODULES)
def test_modules_take_it_as_typed(command, places, tmp_path, monkeypatch):
    module, *arguments = shlex.split(command)[2:]
    if module in ("cpanet.report", "cpanet.data"):
        sweep = str(places["sweep"])
        arguments = [re.sub(r"^outputs/(?!both)\S+|^SWEEP_DIR$", sweep, a) for a in arguments]
        arguments = [str(tmp_path) if a == "outputs/both" else a for a in arguments]
        arguments = [str(places["folder"]) if a == "DIR" else a for a in arguments]
        if "import" in arguments:
            arguments = ["import", str(write_labelme(tmp_path / "source")), str(tmp_path / "target")]
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not ended.value.code
        return
    parse = argparse.ArgumentParser.parse_known_args

    def only_parse(self, *positional, **keywords):
        values, rest = parse(self, *positional, **keywords)
        raise Parsed(values, rest)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", only_parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed (pip install -e '.[benchmark]')")
    except Parsed as understood:
        rest = understood.args[1]
    else:
        pytest.fail("it asked for no arguments")
    assert all("=" in override for override in rest)
    if rest:
        compose(*[o for o in rest if not o.startswith("data=metal8")])


@pytest.mark.parametrize("command", REST)
def test_the_others_name_what_is_there(command, tmp_path):
    words = shlex.split(command)
    if words[0] == "pip":
        extras = configparser.ConfigParser()
        extras.read(REPO / "setup.cfg")
        named = re.search(r"\[(.*)\]", command)
        for extra in named.group(1).split(",") if named else ():
            assert extra in extras["options.extras_require"], command
    elif words[0] == "tensorboard":
        assert words[1:2] == ["--logdir"]
    elif words[1:3] == ["-m", "pytest"]:
        for word in words[3:]:
            assert not word.startswith("tests/") or (REPO / word).exists(), command
    elif words[1] == "-m":
        assert importlib.util.find_spec(words[2]), command
    else:
        assert (REPO / words[1]).is_file(), command


def test_the_figure_of_the_architecture_is_what_its_script_draws(tmp_path):
    target = tmp_path / "architecture.svg"
    subprocess.run([sys.executable, REPO / "docs/figures/architecture.py", target], check=True, timeout=60)
    assert target.read_text() == (REPO / "docs/figures/architecture.svg").read_text()


def test_links_and_pictures_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (page.name, target)


def smaller(arguments: list[str]) -> list[str]:
    """``arguments`` of a training command for seconds, not hours: tiny, on the embedded set, fewer folds and seeds."""
    sized = (
        "data=",
        "data.root=",
        "data.image_size=",
        "profile=",
        "backbone.weights=",
        "train.",
        "evaluate.",
    )
    sized += ("device=", "seed=", "hydra.run.dir=", "hydra.sweep.dir=")
    kept = [a for a in arguments if not a.startswith(sized)]
    kept = ["fold=0,1" if re.fullmatch(r"fold=0,1,.*", a) else a for a in kept]
    seeds = [a for a in arguments if a.startswith("seed=")]
    if any(a.startswith("sweep=") for a in arguments):
        seeds = ["seed=0"]  # one stands for several
    return [*kept, *seeds, *SMALL]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in TRAINED if "resume=" not in c and "…" not in c])
def test_they_run(command, tmp_path):
    """A training command to its end, smaller."""
    arguments = smaller(shlex.split(command)[2:])
    assert run_here(tmp_path, *arguments) == 0
    results = list(tmp_path.glob("outputs/**/result.json"))
    assert results
    assert {json.loads(path.read_text())["status"] for path in results} <= {"completed", "duplicate"}


def ended(result: Path) -> list:
    """The result of a run without its times."""
    record = json.loads(result.read_text())
    return [record.get(key) for key in ("status", "best", "last", "iterations")]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in TRAINED if "resume=" in c or "…" in c])
def test_they_go_on(command, tmp_path):
    """A command that goes on with what is there, after the command that made it."""
    words = shlex.split(command)[2:]
    first = smaller([w for w in words if not w.startswith(("resume=", "data.workers=", "checkpoint."))])
    moved = any(w.startswith("data.root=") for w in words)
    if moved:
        first += ["data=folder", f"data.root={write_folder(tmp_path / 'before')}"]
    assert run_here(tmp_path, *first) == 0
    if moved:
        (tmp_path / "before").rename(tmp_path / "after")
    made = sorted(tmp_path.glob("outputs/**/result.json"))
    before = [ended(path) for path in made]
    if any(w.startswith("resume=outputs") for w in words):
        rest = [w for w in words if not w.startswith(("resume=", "data.root="))]
        rest += [f"data.root={tmp_path / 'after'}"] if moved else []
        again = [f"resume={made[0].parent}", *rest]
    elif any(w.startswith("hydra.sweep.dir=") for w in words):
        (sweep,) = (tmp_path / "outputs").iterdir()
        again = [*first, f"hydra.sweep.dir={sweep}"]
    else:
        again = [*first, "resume=true"]
    assert run_here(tmp_path, *again) == 0
    assert sorted(tmp_path.glob("outputs/**/result.json")) == made  # nothing was begun anew
    assert [ended(path) for path in made] == before
