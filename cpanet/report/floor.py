"""The training-free floor in a table: one row for every set of cells that have the same one.

Every trained run evaluates, on its own test episodes, the prototype comparison of its frozen features (see
:mod:`cpanet.models.floor`). Cells that differ in what is trained share that floor; other test classes, shots, images or
backbones have another.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from cpanet.report.arrange import Cell
from cpanet.report.collect import FLOOR
from cpanet.report.values import Key

T = TypeVar("T", bound=Hashable)
NAME = "floor"


def seeds_with_floor(cells: Sequence[Cell], seeds: Iterable[int]) -> list[int]:
    """Those of ``seeds`` whose runs in all ``cells`` know their floor."""
    return [seed for seed in seeds if all(cell.runs[seed].floor is not None for cell in cells)]


def has_episodes(cells: Sequence[Cell]) -> bool:
    """Whether the floor of ``cells`` can be compared with episode by episode."""
    return all(any(FLOOR in run.episodes for run in cell.runs.values()) for cell in cells)


def alike(floors: Mapping[Key, T]) -> dict[T, list[Key]]:
    """Floor → the keys that have it, in the order of the keys."""
    groups: dict[T, list[Key]] = {}
    for key, floor in floors.items():
        groups.setdefault(floor, []).append(key)
    return groups


def common(keys: Sequence[Key], every: Sequence[Key]) -> Key:
    """Per axis the value that ``keys`` share where not all of ``every`` do; empty elsewhere."""
    shared = []
    for i in range(len(keys[0])):
        values = {key[i] for key in keys}
        shared.append(values.pop() if len(values) == 1 and len({key[i] for key in every}) > 1 else "")
    return tuple(shared)
