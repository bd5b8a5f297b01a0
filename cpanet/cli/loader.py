"""Hydra's config loader, with numbers as group options, resolved ``auto`` choices and readable errors.

Hydra 1.3 refuses a bare number as a group's option ("Config group override must be a string or a list. Got
int"), so ``fold=0`` or ``loss_k=0.2`` would need quotes, and quotes for the shell around them. This loader
looks at the parsed overrides before Hydra does. A loader travels with its jobs to worker processes, pickled
by reference to this module, so that launchers need nothing more.
"""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any, Callable

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cpanet import options, targets
from cpanet.cli.auto import make_absolute, resolve_auto_options
from cpanet.cli.checkpoint_config import adopt
from cpanet.cli.explain import CompositionError, explain
from cpanet.cli.naming import latest, run_name
from cpanet.cli.numbers import as_choice
from cpanet.config import defaults, resume
from cpanet.config.keys import leaves, resolved
from cpanet.console import program
from cpanet.data import DataSet, FSSD12Set
from cpanet.errors import UserError

MOST_JOBS = 256  # of a sweep, whose configurations are kept

# Here, because the worker processes of other launchers import this module and no other before they compose a job.
# Interpolations in a list of defaults see groups, neither values (``root``) nor files (``options``).
_composed: dict[str, Any] = {}


def is_synthetic(data: str) -> bool:
    """Whether the option ``data`` of the configuration that is being composed is drawn."""
    if data == "auto":
        return not (_composed["root"] or os.environ.get(FSSD12Set.VARIABLE))
    option = _composed["options"].load_config(f"data/{data}")
    if option is None or targets.KEY not in option.config:
        return False  # here and below: Hydra, or the check, says what is wrong
    targets.allow([option.config[targets.KEY]])
    try:
        return bool(targets.class_of(option.config, DataSet, DataSet.KEY).synthetic)
    except UserError:
        return False


OmegaConf.register_new_resolver(
    "cpanet.profile", lambda device, data: defaults.profile_for(device, is_synthetic(data)), replace=True
)
OmegaConf.register_new_resolver(
    "cpanet.recipe",
    lambda profile, device, data: defaults.recipe_for(profile, device, is_synthetic(data)),
    replace=True,
)
OmegaConf.register_new_resolver("cpanet.run_name", run_name, replace=True)
OmegaConf.register_new_resolver("cpanet.program", program, replace=True)


class ConfigLoader(ConfigLoaderImpl):
    """See the module."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._jobs: dict[tuple[str, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_jobs": {}}  # a job in another process composes its own

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
        config = self.compose(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        refuse_names(overrides)
        if OmegaConf.select(config, "hydra.callbacks.sweep.layout"):  # as earlier versions called it
            raise CompositionError(
                "sweep: the first line of its file must now be: # @package hydra.callbacks.sweep.table"
            )
        targets.allow(targets.targets_of(OmegaConf.to_container(config, resolve=False)))
        if run_mode == RunMode.RUN:  # a sweep's own configuration is no job: each job resolves its own
            try:
                make_absolute(config)
                if config.get("resume"):  # its record says what ``auto`` became
                    return resumed(config, overrides, lambda texts: self.compose(config_name, texts))
                if config.get("task") != "train":
                    adopt(config, overrides)
                resolve_auto_options(config)
            except UserError as error:
                raise CompositionError(str(error).strip()) from error
            except OmegaConfBaseException as error:
                raise CompositionError(str(error).strip().splitlines()[0]) from error
        elif OmegaConf.select(config, "hydra.callbacks.sweep.table"):
            with (
                read_write(config.hydra),
                open_dict(config.hydra),
            ):  # sweep=NAME says so by itself, without -m
                config.hydra.mode = RunMode.MULTIRUN
                config.hydra.overrides.hydra.append("hydra.mode=MULTIRUN")
        return config

    def compose(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode = RunMode.RUN,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra composes it; ``auto`` still stands in it."""
        roots = [text.split("=", 1)[1] for text in overrides if text.lstrip("+").startswith("data.root=")]
        _composed.update(root=roots[-1] if roots else "", options=self.repository)
        try:
            with warnings.catch_warnings():
                # the ready launchers under conf/ bear the names of the plugins' own on purpose
                warnings.filterwarnings("ignore", "(?s).*validated against ConfigStore schema")
                return super().load_configuration(
                    config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                )
        except CompositionError:
            raise
        except Exception as error:  # composing runs no code but resolvers: the mistake is in what was typed
            raise explain(error, overrides, self, config_name) from error

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job goes on with whatever is in its directory: ``resume`` is for the sweep as a whole.

        Composed once, though the plan, Hydra's check of a batch and the launcher ask for it each.
        """
        own = [text for text in sweep_overrides if not text.startswith("resume=")]
        key = (*master_config.hydra.overrides.hydra, "--", *own)
        if key in self._jobs:
            return copy.deepcopy(self._jobs[key])
        composed: DictConfig = super().load_sweep_config(master_config, own)
        if len(self._jobs) < MOST_JOBS:
            self._jobs[key] = copy.deepcopy(composed)  # who asks for it writes into it
        return composed

    def move_jobs(self, directory: str, override: str) -> None:
        """Move what :meth:`load_sweep_config` composed into ``directory``, as ``override`` says to all from now on."""
        kept, self._jobs = self._jobs, {}
        for key, job in kept.items():
            with read_write(job.hydra), open_dict(job.hydra):
                job.hydra.sweep.dir = directory
                job.hydra.overrides.hydra.append(override)
            at = key.index("--")
            moved = (*key[:at], override, *key[at:])
            self._jobs[moved] = job

    def _parse_overrides_and_create_caching_repo(self, config_name: Any, overrides: Any) -> Any:
        overrides = [options.as_typed_now(text) for text in overrides]
        parsed, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        return [as_choice(override, repo) for override in parsed], repo


_NAMED = (
    "data",
    "backbone",
    "ablation",
    "protocol",
    "recipe",
    "recipe/optimizer",
    "recipe/schedule",
    "recipe/episodes",
)
NAMES = {f"{group.replace('/', '.')}.name": group for group in _NAMED}


def refuse_names(overrides: list[str]) -> None:
    """Raises CompositionError for a key that says what a group chose and, set by itself, would change nothing."""
    for text in overrides:
        key = text.lstrip("+~").split("=")[0]
        if key in NAMES:
            raise CompositionError(
                f"{text}: {key} only says what was chosen. To choose: {NAMES[key]}=OPTION."
            )


def refuse_recorded_targets(begun: list[str], typed: list[str], directory: Path) -> None:
    """Raises CompositionError for a class that a run's own overrides name: a directory does not choose what is run."""
    for text in begun:
        if targets.KEY in text and text not in typed:
            raise CompositionError(
                f"resume={directory} was begun with {text}, a class that is not imported on a file's word. "
                "If you trust it, type it again."
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
            resolve_auto_options(config)
            return config  # nothing to go on with: the first run of this command
        directory = found
    values = options.current(resume.read_config(directory))
    begun = resume.read_overrides(directory)
    typed = [text for text in overrides if not text.startswith(("resume=", "hydra"))]
    refuse_recorded_targets(begun, typed, directory)
    before = compose([*(text for text in overrides if text.startswith("hydra")), *begun])
    after = compose([*(text for text in overrides if text.startswith("hydra")), *begun, *typed])
    for composed in (before, after):
        make_absolute(composed)
        if composed.data.name == "auto":  # it has become what was recorded
            with open_dict(composed):
                composed.data.update({key: values["data"].get(key) for key in ("name", targets.KEY)})
    wanted = resolved(after)
    typed_now = leaves(wanted)
    changed = {key for key, value in leaves(resolved(before)).items() if typed_now.get(key) != value}
    conflicts = [text for text in resume.differences(values, wanted) if text.split(" = ")[0] in changed]
    if conflicts:
        raise CompositionError(
            f"resume={directory} goes on with the configuration that was recorded. In conflict: "
            f"{'; '.join(conflicts)}. Leave these out, or start a new run."
        )
    targets.check_recorded(values, f"resume={directory}")
    with read_write(after), open_dict(after):
        for key, value in leaves(values).items():
            if key not in changed and key != "resume":
                OmegaConf.update(after, key, value, merge=False, force_add=True)
        after.resume = after.hydra.run.dir = str(directory.absolute())
    return after
