"""Draws who imports whom in ``cpanet``, a box a package: ``python -m docs.figures.imports``.

Arrows go from a package to those that it imports, functions' own imports included; packages stand above what they
import. ``imports.svg`` is written beside this file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).with_name("imports.svg")
Graph = dict[str, set[str]]


def imports(package: str = "cpanet", root: Path = ROOT) -> Graph:
    """``{module: modules of the package that it imports}``, read from the source.

    A name taken from a package counts as its module where there is one (``from cpanet import engine``), else as the
    package's ``__init__``. What only a type checker reads (``if TYPE_CHECKING:``) does not count.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / package).rglob("*.py"))
    }
    return {module: _imported(path, module, files) for module, path in files.items()}


def _imported(path: Path, module: str, known: Mapping[str, Path]) -> set[str]:
    found = set()
    for node in _nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in known else node.module)
    return {name for name in found if name in known and name != module}


def _nodes(node: ast.AST) -> list[ast.AST]:
    """Every node below ``node`` but those for type checkers."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        found += [child, *_nodes(child)]
    return found


def by_package(graph: Mapping[str, set[str]]) -> Graph:
    """Modules joined to what stands directly below ``cpanet``; an arrow to itself is left out."""

    def top(module: str) -> str:
        return module.split(".")[:2][-1]

    joined: Graph = defaultdict(set)
    for module, others in graph.items():
        joined[top(module)] |= {top(other) for other in others} - {top(module)}
    return dict(joined)


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The height of each node: 0 without imports, else one above the highest that it imports. CycleError in a circle."""
    height: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        height[node] = 1 + max((height[other] for other in graph.get(node, ())), default=-1)
    return height


def draw(graph: Graph, out: Path) -> None:
    """The drawing, an SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    # the same file for the same graph, with letters as text
    plt.rcParams.update({"svg.hashsalt": "imports", "svg.fonttype": "none"})
    height = levels(graph)
    rows: dict[int, list[str]] = defaultdict(list)
    for node in sorted(graph):
        rows[height[node]].append(node)
    place = {
        node: ((index + 0.5) / len(row) + 0.03 * (level % 2), level)
        for level, row in rows.items()
        for index, node in enumerate(row)
    }
    figure, axes = plt.subplots(figsize=(11, 0.85 * len(rows) + 0.6))
    arrow = {"arrowstyle": "->", "color": "#8a97a8", "lw": 0.7, "alpha": 0.6, "shrinkA": 12, "shrinkB": 12}
    for node, others in sorted(graph.items()):
        for other in sorted(others):
            axes.annotate("", xy=place[other], xytext=place[node], arrowprops=arrow)
    for node, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#eef3f8", "edgecolor": "#41566b"}
        axes.text(x, y, node, ha="center", va="center", fontsize=9, family="sans-serif", bbox=box)
    axes.set_xlim(-0.02, 1.05)
    axes.set_ylim(-0.6, max(rows) + 0.6)
    axes.axis("off")
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    graph = by_package(imports())
    graph.pop("cpanet", None)  # the package's own file: its version
    graph["run.py"] = graph.pop("__main__")
    for others in graph.values():
        others.discard("cpanet")
    for name in ("errors", "runtime"):  # everything imports these two
        for node, others in graph.items():
            if node != name and len(others) > 1:
                others.discard(name)
    draw(graph, OUT)
    print(OUT.relative_to(ROOT))


if __name__ == "__main__":
    main()
