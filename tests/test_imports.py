"""Who may import whom: read from the source, nothing is imported."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter

import pytest

from docs.figures.imports import by_package, imports
from tests.shared import REPO

GRAPH = imports()

# A package, and those of this project that it must not import, directly or inside a function.
LAYERS = {
    "cpanet.errors": "cpanet",
    "cpanet.ops": "data models config checkpoint recipe tasks report sweep cli",
    "cpanet.data": "config models checkpoint tasks report sweep predict cli",
    "cpanet.models": "config data recipe tasks report sweep predict cli",
    "cpanet.config": "data models checkpoint predict tasks report sweep explore export cli",
    "cpanet.checkpoint": "config tasks report sweep predict explore export cli",
    "cpanet.tasks": "sweep cli",
    "cpanet.predict": "tasks report sweep cli",
    "cpanet.explore": "tasks report sweep cli",
    "cpanet.export": "tasks report sweep cli",
    "cpanet.report": "tasks sweep cli",
}


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_nothing_imports_each_other_in_a_circle() -> None:
    assert circle(GRAPH) == []
    assert circle(by_package(GRAPH)) == []


def test_a_circle_is_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_nothing_above_it(package: str) -> None:
    above = ["cpanet" if name == "cpanet" else f"cpanet.{name}" for name in LAYERS[package].split()]
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        if within(module, package)
        for other in others
        if not within(other, package) and any(within(other, name) for name in above)
    ]
    assert not wrong


def test_only_the_entry_point_and_sweeps_import_the_command_line() -> None:
    allowed = ("cpanet.cli", "cpanet.sweep", "cpanet.__main__")
    for user, others in GRAPH.items():
        if any(within(other, "cpanet.cli") for other in others):
            assert any(within(user, package) for package in allowed), user


@pytest.mark.parametrize("folder", ["benchmarks", "scripts", "examples"])
def test_nothing_but_the_tests_imports_the_tests(folder: str) -> None:
    imported = re.compile(r"^\s*(from|import) tests\b", re.MULTILINE)
    assert not [path for path in (REPO / folder).rglob("*.py") if imported.search(path.read_text("utf-8"))]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
