"""Curves and intervals as the coordinates of inline SVG; colours and strokes are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cpanet.report.runs import Run
from cpanet.report.statistics import Interval

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 30.0


def curves(
    name: str, unit: str, column: str, rows: Mapping[int, Sequence[Run]], scale: float
) -> dict[str, Any] | None:
    """A chart of ``column`` of ``metrics.csv`` over epochs: row → its runs; None where nobody has it.

    A curve is the mean over seeds, its area lies between the lowest and the highest seed; hovering shows ``data``.
    """
    found = {row: _series(runs, column, scale) for row, runs in rows.items()}
    series = {row: values for row, values in found.items() if len(values)}
    if not series:
        return None
    points = pd.concat(series.values())
    last, low, high = float(points.index.max()), points["min"].min(), points["max"].max()
    y_ticks = nice_ticks(min(low, 0.0) if low < 0.5 * high else low, high)
    x_ticks = [tick for tick in nice_ticks(0, max(last, 1), 6) if tick == int(tick)]
    bottom, top = y_ticks[0], y_ticks[-1]

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(last, x_ticks[-1]), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom), 1)

    def path(values: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x(epoch)} {y(value)}" for epoch, value in values)

    drawn = []
    data: dict[str, list[list[float]]] = {}
    for row, values in series.items():
        mean, upper, lower = ([*values[name].items()] for name in ("mean", "max", "min"))
        spread = (values["max"] > values["min"]).any()
        drawn.append(
            {
                "row": row,
                "path": path(mean),
                "area": path([*upper, *reversed(lower)]) + "Z" if spread else "",
                "dots": [(x(e), y(m)) for e, m in mean] if len(mean) <= 12 else [],
            }
        )
        data[str(row)] = [
            [e, x(e), y(m), round(m, 4), round(lo, 4), round(h, 4)]
            for (e, m), (_, lo), (_, h) in zip(mean, lower, upper)
        ]
    return {
        "name": name,
        "unit": unit,
        "x_ticks": [(x(tick), f"{tick:g}") for tick in x_ticks],
        "y_ticks": [(y(tick), f"{tick:g}") for tick in y_ticks],
        "curves": drawn,
        "data": {"unit": unit, "rows": data},
    }


def forest(differences: Mapping[int, Interval]) -> dict[str, Any] | None:
    """Intervals under one another, by row, points; positions in percent of the chart's width. None without any."""
    if not differences:
        return None
    values = [0.0, *(value for found in differences.values() for value in found[:3])]
    # one wild interval (two seeds can give that) must not flatten the others: it runs off the edge
    reach = 4 * max(1.0, float(np.median([max(abs(d.low), abs(d.high)) for d in differences.values()])))
    ticks = nice_ticks(max(-reach, min(values)), min(reach, max(values)), 6)
    left, right = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return round(100 * (min(max(value, left), right) - left) / (right - left), 2)

    return {
        "zero": x(0),
        "ticks": [(x(t), f"{t:+g}".replace("-", "−") if t else "0") for t in ticks],
        "whiskers": [(row, d, x(d.low), x(d.difference), x(d.high)) for row, d in differences.items()],
    }


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values that enclose ``low`` … ``high``, at most about ``most`` of them."""
    if not (math.isfinite(high - low) and high > low):
        low, high = low - 0.5, low + 0.5
    return [float(tick) for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _series(runs: Sequence[Run], column: str, scale: float) -> pd.DataFrame:
    """Mean, lowest and highest seed at every epoch that all seeds have reached."""
    found = []
    for run in runs:
        if {"epoch", column} <= set(run.metrics.columns):
            rows = run.metrics[["epoch", column]].replace([math.inf, -math.inf], math.nan).dropna()
            if len(rows):
                found.append(scale * rows.set_index("epoch")[column].groupby(level=0).last())
    together = pd.concat(found or [pd.Series(dtype=float)], axis=1, join="inner").sort_index()
    together.index = together.index.astype(float)
    return pd.DataFrame({name: getattr(together, name)(axis=1) for name in ("mean", "min", "max")})
