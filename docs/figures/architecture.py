"""Draw ``architecture.svg``, the figure of docs/method.md: ``python docs/figures/architecture.py [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1180, 520
STYLE = """
text { font-family: "DejaVu Sans", Verdana, Arial, sans-serif; font-size: 13px; fill: #1d2733; text-anchor: middle }
.name { font-weight: bold; font-size: 14px }
.shape, .note { font-size: 11px; fill: #5a6775 }
.left { text-anchor: start }
.box { stroke: #33414f; stroke-width: 1.2 }
.frozen { fill: #dfe6ee } .learnt { fill: #d8ecdb } .training { fill: #fbe6cf; stroke-dasharray: 5 3 }
.flow { fill: none; stroke: #33414f; stroke-width: 1.5 } .dashed { stroke-dasharray: 5 3 }
"""


def box(x: float, y: float, w: float, h: float, kind: str, text: str) -> str:
    """A part of the network, its middle at height ``y``: its name, and lines on what it does, with | between them."""
    name, *lines = text.split("|")
    middle, top = x + w / 2, y - 7.5 * len(lines) + 5
    texts = [f'<text class="name" x="{middle:g}" y="{top:g}">{escape(name)}</text>']
    for number, line in enumerate(lines, 1):
        texts.append(f'<text class="note" x="{middle:g}" y="{top + 15 * number:g}">{escape(line)}</text>')
    rectangle = f'<rect class="box {kind}" x="{x:g}" y="{y - h / 2:g}" width="{w:g}" height="{h:g}" rx="6"/>'
    return "".join([rectangle, *texts])


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """A flow along ``points``, its head at the last one."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline class="flow{" dashed" if dashed else ""}" points="{path}" marker-end="url(#head)"/>'


def label(x: float, y: float, text: str, kind: str = "shape") -> str:
    """A word beside an arrow, or below a picture."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def steel(x: float, y: float, scratch: str = "", outline: str = "") -> str:
    """A picture of steel, 84×84, with a scratch in some colour and perhaps an outline of it."""
    parts = [f'<rect x="{x:g}" y="{y:g}" width="84" height="84" fill="#8d97a1" stroke="#33414f"/>']
    for row, grey in enumerate(("#939da7", "#868f99", "#98a2ab", "#8a949d")):
        parts.append(
            f'<rect x="{x + 1:g}" y="{y + 9 + 20 * row:g}" width="82" height="7" fill="{grey}" opacity=".8"/>'
        )
    parts.append(_scratch(x, y, scratch or "#4b545e", outline))
    return "".join(parts)


def mask(x: float, y: float) -> str:
    """The same as a mask."""
    black = f'<rect x="{x:g}" y="{y:g}" width="84" height="84" fill="#10151a" stroke="#33414f"/>'
    return black + _scratch(x, y, "#ffffff")


def _scratch(x: float, y: float, fill: str, outline: str = "") -> str:
    points = ((14, 66), (34, 46), (52, 36), (70, 14), (74, 19), (57, 43), (38, 54), (18, 71))
    path = " ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in points)
    stroke = f' stroke="{outline}" stroke-width="2"' if outline else ""
    return f'<polygon points="{path}" fill="{fill}"{stroke}/>'


def draw() -> str:
    """The whole figure as SVG."""
    query, support, auxiliary = 98, 262, 418  # rows, by their middles
    parts = [
        steel(24, query - 42),
        label(66, query + 58, "query", "name"),
        mask(24, support - 42),
        steel(118, support - 42),
        label(113, support + 58, "K masks and supports", "name"),
        # one backbone for both
        box(
            236,
            (query + support) / 2,
            124,
            support - query + 104,
            "frozen",
            "backbone|frozen; VGG or|ResNet, stages|2 and 3 on one grid",
        ),
        arrow((108, query), (236, query)),
        arrow((202, support), (236, support)),
        label(388, query - 8, "768"),
        label(388, support - 8, "768"),
        arrow((360, query), (418, query)),
        arrow((360, support), (418, support)),
        box(418, query, 106, 64, "learnt", "down_query|1×1, ReLU, drop"),
        box(418, support, 106, 64, "learnt", "down_supp|1×1, ReLU, drop"),
        # the support's mask, enlarged or shrunk to the grid, multiplies its feature
        arrow((524, support), (556, support)),
        f'<circle class="box learnt" cx="572" cy="{support}" r="16"/>',
        label(572, support + 5, "×", "name"),
        arrow((66, support + 64), (66, support + 82), (572, support + 82), (572, support + 16)),
        label(300, support + 76, "mask, resized to the grid"),
        arrow((588, support), (622, support)),
        box(622, support, 130, 84, "learnt", "CPP|non-local block,|maximum over|all positions"),
        label(796, support - 8, "prototype, 256"),
        arrow((752, support), (848, support)),
        box(848, support, 88, 64, "learnt", "mean|over K shots"),
        arrow((892, support - 32), (892, query + 100), (680, query + 100), (680, query + 42)),
        label(786, query + 92, "at every position"),
        # comparison and decoder
        arrow((524, query), (612, query)),
        label(568, query - 8, "256×13×13"),
        box(
            612,
            query,
            136,
            84,
            "learnt",
            "compare, refine|[prototype, query]|1×1, then 3×3 three|times, ReLU, drop",
        ),
        arrow((748, query), (830, query)),
        label(789, query - 8, "256×13×13"),
        box(
            830,
            query,
            148,
            84,
            "learnt",
            "SSA|enlarged to 200×200,|two squeezes, fusion,|attention, 2 logits",
        ),
        arrow((978, query), (1062, query)),
        label(1020, query - 8, "2×200×200"),
        steel(1062, query - 42, "#eb3c3c", "#40dc5a"),
        label(1104, query + 58, "prediction", "name"),
        # the auxiliary branch
        arrow((540, support), (540, auxiliary), (622, auxiliary), dashed=True),
        arrow(
            (800, support), (800, auxiliary - 62), (687, auxiliary - 62), (687, auxiliary - 36), dashed=True
        ),
        box(622, auxiliary, 130, 72, "training", "SA|the support segments|itself with its|own prototype"),
        arrow((752, auxiliary), (848, auxiliary), dashed=True),
        label(799, auxiliary - 8, "2×200×200"),
        box(848, auxiliary, 150, 52, "training", "auxiliary loss|times k, mean over shots"),
        arrow((1104, query + 66), (1104, auxiliary - 104), dashed=True),
        box(1034, auxiliary - 81, 140, 46, "training", "main loss|cross-entropy"),
        arrow((998, auxiliary), (1034, auxiliary), dashed=True),
        box(1034, auxiliary, 140, 44, "training", "sum|what is minimised"),
        arrow((1104, auxiliary - 58), (1104, auxiliary - 22), dashed=True),
        *_legend(auxiliary + 74),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        "<title>CPANet: backbone, prototype by CPP, comparison, SSA decoder; SA in training only</title>\n"
        f"<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L10,5 L0,10 z" fill="#33414f"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _legend(y: float) -> list[str]:
    entries = (
        (24, "frozen", "ImageNet weights, never trained"),
        (300, "learnt", "trained"),
        (420, "training", "in training only"),
    )
    parts = []
    for x, kind, text in entries:
        parts.append(f'<rect class="box {kind}" x="{x}" y="{y - 11:g}" width="22" height="14" rx="3"/>')
        parts.append(
            f'<text class="note left" style="text-anchor: start" x="{x + 30}" y="{y:g}">{text}</text>'
        )
    words = "shapes: channels × height × width for VGG-16 and 200×200 pictures, width 256"
    parts.append(f'<text class="note" style="text-anchor: end" x="{WIDTH - 24}" y="{y:g}">{words}</text>')
    return parts


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".svg")
    target.write_text(draw())
