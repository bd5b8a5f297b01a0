"""Numbers as options of a group: ``fold=0``, ``loss_k=0.2``, ``loss_k=0.3``."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Union

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override

from cpanet.config.keys import leaves

Number = Union[int, float]


def as_choice(override: Override, repo: Any) -> Override:
    """``override`` with a number put into the words of its group.

    ``loss_k=0`` becomes the option ``0.0``, which is numerically equal. A number without an option
    (``loss_k=0.3``) sets the key that the group's options set (``loss.k=0.3``), where that is a single
    number; its range is checked with all other values. Anything else is left to Hydra.
    """
    group = override.key_or_group
    if override.is_sweep_override() or override.is_delete() or override.is_hydra_override():
        return override
    if not repo.group_exists(group):
        return override
    value = override.value()
    number = as_number(value)
    options = repo.get_group_options(group, ObjectType.CONFIG)
    if number is None or value in options:
        return override
    for option in options:
        if as_number(option) == number:
            return dataclasses.replace(override, _value=option)
    key = number_key(group, options, repo)
    if key is None:
        return dataclasses.replace(override, _value=str(value))  # an unknown option: Hydra says so
    # In brackets OmegaConf reads the same key, and Hydra does not see the group of the same name.
    first, _, rest = key.partition(".")
    return dataclasses.replace(
        override, key_or_group=f"[{first}]" + (f".{rest}" if rest else ""), _value=number
    )


def number_key(group: str, options: list[str], repo: Any) -> str | None:
    """The one key that the options of ``group`` set, if they set a single number; None otherwise."""
    for option in options:
        loaded = repo.load_config(config_path=f"{group}/{option}")
        package = (loaded.header["package"] or "").replace("_global_", "")
        found = leaves(loaded.config, prefix=package)
        return next(iter(found)) if len(found) == 1 and as_number(*found.values()) is not None else None
    return None


def as_number(value: Any) -> Number | None:
    """``value`` as a number, if it is one or spells one; truth values are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            number: Number = kind(value)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None
