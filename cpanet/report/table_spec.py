"""Axes, rows and columns of a sweep's table, as plain data: ``<sweep directory>/sweep.yaml``.

A sweep's declaration under ``sweeps/`` holds the same keys; the copy in the sweep's directory says what was asked for
(the axes and seeds of that command), so that the table needs nothing else. An example::

    name: modules
    title: Modules of CPANet
    axes:                                   # varied keys, in the order of the table; as on the command line
      ablation: [none, cpp, full]
    variants: []                            # instead of, or beside, axes: rows that set several keys at once
    seeds: [0, 1, 2]
    rows: [ablation]                        # axes (or "variant") whose combinations are rows
    columns: []                             # axes whose combinations are columns
    mean_over: null                         # one of the columns, such as fold: adds a column with the mean over it
    reference: {ablation: full, loss.k: 0.4}
    published:
      - source: CPANet-Jittor, VGG-16
        conditions: {data: fssd12, profile: paper, backbone: vgg16_bn, fold: 0, shot: 1, data.image_size: 200}
        values:
          - {match: {ablation: cpp}, miou: 42.30, fb_iou: 64.26}

Keys are a group (``ablation``: its name is compared) or a dotted key of the resolved configuration (``loss.k``).
A variant is recognised by all its ``overrides``; of several that fit, the one with most keys wins, so that
``{protocol: corrected, protocol.aux_loss: last}`` is told from ``{protocol: corrected}``.

A job that was left out because another one computes the same thing (equal :func:`cpanet.config.equivalence.fingerprint`)
keeps its run directory with a ``result.json`` of ``{"status": "duplicate", "duplicate_of": "../<other job's directory>",
"config": <its own resolved configuration>}``; the table then shows the other job's numbers in both places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cpanet.errors import UserError

FILE = "sweep.yaml"

Scalar = Union[bool, int, float, str, None]
Overrides = dict[str, Scalar]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Part):
    """A row that sets several keys at once."""

    label: str
    overrides: Overrides


class PublishedValue(_Part):
    """One published result, in percent."""

    match: Overrides
    miou: Optional[float] = None
    fb_iou: Optional[float] = None


class Source(_Part):
    """A publication, and under which conditions it measured."""

    source: str
    conditions: Overrides = Field(default_factory=dict)
    values: list[PublishedValue]


class TableSpec(_Part):
    """See the module. Everything but name and title may be left out."""

    name: str
    title: str
    axes: dict[str, list[Scalar]] = Field(default_factory=dict)
    variants: list[Variant] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    rows: list[str] = Field(default_factory=list)
    columns: list[str] = Field(default_factory=list)
    mean_over: Optional[str] = None
    reference: Overrides = Field(default_factory=dict)
    published: list[Source] = Field(default_factory=list)


def parse(data: Any, origin: str) -> TableSpec:
    """``data`` (from YAML) as a :class:`TableSpec`; ``origin`` names it in the :class:`UserError` of what is wrong."""
    try:
        return TableSpec.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise UserError(f"{origin}: not a sweep's table: {problems}.") from None


def read(directory: Path) -> TableSpec | None:
    """The specification in a sweep's directory; None where there is none. :class:`UserError` where it is damaged."""
    path = directory / FILE
    try:
        return parse(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from None


def dump(spec: TableSpec) -> str:
    """YAML text that :func:`read` understands."""
    return yaml.safe_dump(spec.model_dump(), sort_keys=False, allow_unicode=True)
