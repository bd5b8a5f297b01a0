"""Hydra's config loader, with numbers as group options, settled ``auto`` choices and readable errors.

Hydra 1.3 refuses a bare number as a group's option ("Config group override must be a string or a list. Got
int"), so ``fold=0`` or ``loss_k=0.2`` would need quotes, and quotes for the shell around them. This loader
looks at the parsed overrides before Hydra does. A loader travels with its jobs to worker processes, pickled
by reference to this module, so that launchers need nothing more.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, Callable, Union

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cpanet.config import choices, naming, recorded
from cpanet.config.choices import settle
from cpanet.config.explain import CompositionError, explain
from cpanet.config.keys import leaves
from cpanet.config.naming import latest
from cpanet.config.of_checkpoint import adopt
from cpanet.errors import UserError

Number = Union[int, float]

# Here, because the worker processes of other launchers import this module and no other before they compose a job.
OmegaConf.register_new_resolver("cpanet.profile", choices.profile_for, replace=True)
OmegaConf.register_new_resolver("cpanet.recipe", choices.recipe_for, replace=True)
OmegaConf.register_new_resolver("cpanet.run_name", naming.run_name, replace=True)


class ConfigLoader(ConfigLoaderImpl):
    """See the module."""

    @staticmethod
    def supported() -> bool:
        """Whether this Hydra still has what is overridden here."""
        return all(
            hasattr(ConfigLoaderImpl, name)
            for name in (
                "_parse_overrides_and_create_caching_repo",
                "load_configuration",
                "get_group_options",
            )
        )

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        try:
            with warnings.catch_warnings():
                # the ready launchers under conf/ bear the names of the plugins' own on purpose
                warnings.filterwarnings("ignore", "(?s).*validated against ConfigStore schema")
                config = super().load_configuration(
                    config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                )
        except CompositionError:
            raise
        except Exception as error:  # composing runs no code but resolvers: what fails here is what was typed
            raise explain(error, overrides, self, config_name) from error
        refuse_names(overrides)
        if run_mode == RunMode.RUN:  # a sweep's own configuration is no job: each job settles its own
            try:
                settle(config)
                if config.get("task") != "train":
                    adopt(config, overrides)
            except UserError as error:
                raise CompositionError(str(error).strip()) from error
            except OmegaConfBaseException as error:
                raise CompositionError(str(error).strip().splitlines()[0]) from error
            if config.get("resume"):
                return resumed(
                    config, overrides, lambda texts: self.load_configuration(config_name, texts, run_mode)
                )
        elif OmegaConf.select(config, "hydra.callbacks.sweep.layout"):
            with (
                read_write(config.hydra),
                open_dict(config.hydra),
            ):  # sweep=NAME says so by itself, without -m
                config.hydra.mode = RunMode.MULTIRUN
                config.hydra.overrides.hydra.append("hydra.mode=MULTIRUN")
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job goes on with whatever is in its directory: ``resume`` is for the sweep as a whole."""
        own = [text for text in sweep_overrides if not text.startswith("resume=")]
        return super().load_sweep_config(master_config, own)

    def _parse_overrides_and_create_caching_repo(self, config_name: Any, overrides: Any) -> Any:
        parsed, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        return [as_choice(override, repo) for override in parsed], repo


NAMES = {"ablation.name": "ablation", "protocol.name": "protocol", "recipe.name": "recipe"}


def refuse_names(overrides: list[str]) -> None:
    """Raises CompositionError for a key that says what a group chose and, set by itself, would change nothing."""
    for text in overrides:
        group = NAMES.get(text.lstrip("+~").split("=")[0])
        if group is not None:
            raise CompositionError(
                f"{text}: {group}.name only says what was chosen. To choose: {group}=OPTION."
            )


def resumed(
    config: DictConfig, overrides: list[str], compose: Callable[[list[str]], DictConfig]
) -> DictConfig:
    """The configuration that a run goes on with: the one it recorded, from ``config``, as composed from ``overrides``.

    ``compose`` composes other overrides. Raises CompositionError where what was typed is not what was recorded.
    """
    directory = Path(config.hydra.run.dir) if config.resume is True else Path(str(config.resume)).expanduser()
    if config.resume is True:
        found = latest(directory.absolute())
        with read_write(config), open_dict(config):
            config.resume = None
        if found is None:
            return config  # nothing to go on with: the first run of this command
        directory = found
    try:
        values, begun = recorded.read_config(directory), recorded.read_overrides(directory)
    except UserError as error:
        raise CompositionError(str(error)) from error
    typed = [text for text in overrides if not text.startswith(("resume=", "hydra"))]
    before = compose([*(text for text in overrides if text.startswith("hydra")), *begun])
    after = compose([*(text for text in overrides if text.startswith("hydra")), *begun, *typed])
    wanted = leaves(plain(after))
    changed = {key for key, value in leaves(plain(before)).items() if wanted.get(key) != value}
    conflicts = [
        text for text in recorded.differences(values, plain(after)) if text.split(" = ")[0] in changed
    ]
    if conflicts:
        raise CompositionError(
            f"resume={directory} goes on with the configuration that was recorded. In conflict: "
            f"{'; '.join(conflicts)}. Leave these out, or start a new run."
        )
    with read_write(after), open_dict(after):
        for key, value in leaves(values).items():
            if key not in changed and key != "resume":
                OmegaConf.update(after, key, value, merge=False, force_add=True)
        after.resume = after.hydra.run.dir = str(directory.absolute())
    return after


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration without Hydra's part, resolved."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    values.pop("hydra", None)
    resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    return resolved


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
