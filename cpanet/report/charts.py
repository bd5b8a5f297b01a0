"""Curves and intervals as the coordinates of inline SVG; colours and strokes are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cpanet.report.runs import Run

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 30.0


class Tick(NamedTuple):
    """A mark of an axis."""

    at: float
    text: str


class Curve(NamedTuple):
    """One row: the path of its mean over seeds, and the area between its lowest and highest seed."""

    row: int
    path: str
    area: str
    dots: list[tuple[float, float]]


class Chart(NamedTuple):
    """Everything that the template draws; hovering shows ``data``."""

    name: str
    unit: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    data: dict


class Whisker(NamedTuple):
    """One interval, in percent of the chart's width."""

    row: int
    low: float
    at: float
    high: float
    marked: bool
    text: str


class Forest(NamedTuple):
    """Intervals under one another."""

    zero: float
    ticks: list[Tick]
    whiskers: list[Whisker]


def curves(
    name: str, unit: str, column: str, rows: Mapping[int, Sequence[Run]], scale: float
) -> Chart | None:
    """A chart of ``column`` of ``metrics.csv`` over epochs: row → its runs; None where nobody has it."""
    series = {row: _series(runs, column, scale) for row, runs in rows.items()}
    series = {row: values for row, values in series.items() if values}
    if not series:
        return None
    points = [point for values in series.values() for point in values]
    last = max(epoch for epoch, *_ in points)
    low, high = min(p[2] for p in points), max(p[3] for p in points)
    y_ticks = nice_ticks(min(low, 0.0) if low < 0.5 * high else low, high)
    x_ticks = [tick for tick in nice_ticks(0, max(last, 1), 6) if tick == int(tick)]
    bottom, top = y_ticks[0], y_ticks[-1]

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(last, x_ticks[-1]), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom), 1)

    drawn = []
    for row, values in series.items():
        upper = [f"{x(e)} {y(h)}" for e, _, _, h in values]
        lower = [f"{x(e)} {y(lo)}" for e, _, lo, _ in reversed(values)]
        spread = any(h > lo for _, _, lo, h in values)
        drawn.append(
            Curve(
                row,
                "M" + "L".join(f"{x(e)} {y(m)}" for e, m, _, _ in values),
                "M" + "L".join([*upper, *lower]) + "Z" if spread else "",
                [(x(e), y(m)) for e, m, _, _ in values] if len(values) <= 12 else [],
            )
        )
    data = {
        "unit": unit,
        "rows": {
            str(row): [[e, x(e), y(m), round(m, 4), round(lo, 4), round(h, 4)] for e, m, lo, h in values]
            for row, values in series.items()
        },
    }
    return Chart(
        name,
        unit,
        [Tick(x(t), f"{t:g}") for t in x_ticks],
        [Tick(y(t), f"{t:g}") for t in y_ticks],
        drawn,
        data,
    )


def forest(differences: Mapping[int, tuple[float, float, float, bool, str]]) -> Forest | None:
    """Row → (difference, low, high, marked, text), points."""
    if not differences:
        return None
    values = [v for d in differences.values() for v in d[:3]]
    # one wild interval (two seeds can give that) must not flatten the others: it runs off the edge
    reach = 4 * max(
        1.0, float(np.median([max(abs(low), abs(high)) for _, low, high, _, _ in differences.values()]))
    )
    ticks = nice_ticks(max(-reach, min([*values, 0.0])), min(reach, max([*values, 0.0])), 6)
    left, right = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return round(100 * (min(max(value, left), right) - left) / (right - left), 2)

    return Forest(
        x(0),
        [Tick(x(t), f"{t:+g}".replace("-", "−") if t else "0") for t in ticks],
        [
            Whisker(row, x(low), x(at), x(high), marked, text)
            for row, (at, low, high, marked, text) in differences.items()
        ],
    )


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values that enclose ``low`` … ``high``, at most about ``most`` of them."""
    if not (math.isfinite(high - low) and high > low):
        low, high = low - 0.5, low + 0.5
    return [float(tick) for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _series(runs: Sequence[Run], column: str, scale: float) -> list[tuple[float, float, float, float]]:
    """(epoch, mean, lowest, highest) at every epoch that all seeds have reached."""
    by_run = []
    for run in runs:
        if {"epoch", column} <= set(run.metrics.columns):
            rows = run.metrics[["epoch", column]].replace([math.inf, -math.inf], math.nan).dropna()
            by_run.append(scale * rows.groupby("epoch")[column].last())
    by_run = [values for values in by_run if len(values)]
    if not by_run:
        return []
    together = pd.concat(by_run, axis=1, join="inner").sort_index()
    found = zip(together.index, together.mean(axis=1), together.min(axis=1), together.max(axis=1))
    return [(float(epoch), float(mean), float(low), float(high)) for epoch, mean, low, high in found]
