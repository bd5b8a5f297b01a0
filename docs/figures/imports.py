"""Draws who imports whom in ``cpanet``, a box a package: ``python -m docs.figures.imports``.

Arrows go from a package to those that it imports, functions' own imports included; packages stand above what they
import. ``imports.svg`` is written beside this file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
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
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if path.name == "__init__.py"
        else ".".join(path.relative_to(root).with_suffix("").parts): path
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


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of two and more nodes that reach each other (strongly connected components, by Kosaraju)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(node: str, edges: Mapping[str, set[str]], into: list[str]) -> None:
        if node in seen or node not in graph:
            return
        seen.add(node)
        for following in sorted(edges[node]):
            visit(following, edges, into)
        into.append(node)

    for node in graph:
        visit(node, graph, order)
    reverse: Graph = defaultdict(set)
    for node, others in graph.items():
        for other in others:
            reverse[other].add(node)
    seen = set()
    found = []
    for node in reversed(order):
        component: list[str] = []
        visit(node, reverse, component)
        if len(component) > 1:
            found.append(set(component))
    return found


def by_package(graph: Mapping[str, set[str]]) -> Graph:
    """Modules joined to what stands directly below ``cpanet``; an arrow to itself is left out."""

    def top(module: str) -> str:
        parts = module.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    joined: Graph = defaultdict(set)
    for module, others in graph.items():
        joined[top(module)] |= {top(other) for other in others} - {top(module)}
    return dict(joined)


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The height of each node: 0 without imports, else one above the highest that it imports.

    Nodes of a circle stand at one height.
    """
    together = {node: circle for circle in circles(graph) for node in circle}
    height: dict[str, int] = {}

    def of(node: str) -> int:
        circle = together.get(node, {node})
        if node not in height:
            below = {other for member in circle for other in graph.get(member, ())} - circle
            level = 1 + max((of(other) for other in below), default=-1)
            height.update(dict.fromkeys(circle, level))
        return height[node]

    for node in graph:
        of(node)
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
    for node, others in sorted(graph.items()):
        for other in sorted(others):
            upward = height[other] >= height[node]  # against the layers
            axes.annotate(
                "",
                xy=place[other],
                xytext=place[node],
                arrowprops={
                    "arrowstyle": "->",
                    "color": "#c0392b" if upward else "#8a97a8",
                    "lw": 1.4 if upward else 0.7,
                    "alpha": 1.0 if upward else 0.6,
                    "shrinkA": 12,
                    "shrinkB": 12,
                },
            )
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
