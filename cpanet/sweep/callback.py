"""Before the first job of a sweep and after its last: what varies, its directory, its plan, its end."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from cpanet import runtime
from cpanet.cli.auto import announce
from cpanet.cli.callback import RESULTS, is_typed, or_exit
from cpanet.cli.check_config import check
from cpanet.cli.locks import lock_directory, unlock_directory
from cpanet.cli.naming import create_run_dir, latest, make_run_dir, quoted
from cpanet.cli.numbers import number_key
from cpanet.config import Config, validate
from cpanet.config.resume import differences
from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.report import table_spec
from cpanet.report.callback import write_tables
from cpanet.report.table_spec import TableSpec
from cpanet.sweep import axes, lost_jobs, plan, results
from cpanet.sweep.progress import Watch
from cpanet.tasks import USE_EPISODES
from cpanet.tasks.input_checks import check_inputs

# not the callback's own: callbacks are pickled and sent with the jobs
_running: list[Path] = []  # the directory of the sweep
_watches: list[Watch] = []
EXTRAS = {"joblib": "cluster", "submitit": "cluster", "optuna": "optuna"}


class Sweep(Callback):
    """Prepares a sweep and says how it ended. ``table``: the content of a file of ``sweeps/``, or nothing."""

    def __init__(self, table: DictConfig | None = None) -> None:
        self.declared: Any = None if table is None else OmegaConf.to_container(table, resolve=True)

    @or_exit
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_plugins(config)
        _search_for_more(config)
        runtime.export_source_folder()
        typed = _parse(config.hydra.overrides.task)
        axes.refuse_swept(typed)
        declaration = axes.read_declaration(self.declared)
        if declaration is not None:
            declaration = _with_all_folds(declaration, typed)
            _set_params(config, axes.declared_axes(declaration, typed, _key_of))
        overrides = [*_parse(_params(config)), *typed]
        _name_jobs(config, overrides)
        jobs = _compose_jobs(config, overrides)
        _refuse_tasks(jobs)
        announce(config)
        directory = _directory(config)
        lock_directory(directory)
        planned = _plan(config, jobs)
        _check_origin(directory, jobs)
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(directory)
            # absolute, also where it was typed: a job may have another current directory
            there = f"hydra.sweep.dir={quoted(str(directory))}"
            config.hydra.overrides.hydra.append(there)
        _loader().move_jobs(str(directory), there)
        table = axes.table_of(
            declaration, [*_parse(_params(config)), *typed] if declaration is None else typed, _key_of
        )
        write_atomically(directory / table_spec.FILE, table_spec.dump(table).encode())
        plan.write(directory, planned)
        _print_plan(config, directory, planned)
        _running[:] = [directory]
        if "submitit" in str(config.hydra.launcher._target_):
            _outlive_lost_jobs(config)
            _watches.append(Watch(directory, planned))

    @or_exit
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if _end(Path(config.hydra.sweep.dir)):
            sys.exit(1)


def end_with_lost_jobs() -> None:
    """Do what Hydra leaves out when the launcher fails with its jobs: write records, tables, and the last words."""
    while _running:
        directory = _running[0]
        lost_jobs.record_begun(
            directory, _names(directory) or [path.parent.name for path in directory.glob("*/run.log")]
        )
        write_tables(directory)
        _end(directory)


def _end(directory: Path) -> bool:
    """Say how a sweep ended; whether jobs failed."""
    _running.clear()
    unlock_directory(directory)
    while _watches:
        _watches.pop().close()
    found = results.tally(directory, _names(directory))
    Console().print(
        f"{found.completed + found.duplicates} of {found.jobs} jobs completed → {directory}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    if found.failed:
        lines = [f"{len(found.failed)} of {found.jobs} jobs failed:"]
        lines += [f"  {name}: {reason}" for name, reason in found.failed]
        print("\n".join(lines), file=sys.stderr)
    return bool(found.failed)


def _names(directory: Path) -> list[str]:
    """Directories of the jobs that are planned."""
    planned = plan.read(directory)
    return [job.directory for job in planned.jobs] if planned else []


def _outlive_lost_jobs(config: DictConfig) -> None:
    jobs = importlib.import_module("submitit.core.core").Job
    error = importlib.import_module("submitit.core.utils").UncompletedJobError
    original = getattr(jobs.results, "__wrapped__", jobs.results)  # of an earlier sweep of this process
    jobs.results = lost_jobs.waiting_for_all(
        original, error, lambda overrides: _loader().load_sweep_config(config, overrides)
    )


def _search_for_more(config: DictConfig) -> None:
    """Optuna's own defaults minimise and stop at the first failure; a larger mIoU is better, and the rest goes on."""
    for key, value in (("direction", "maximize"), ("max_failure_rate", 1.0), ("n_jobs", 1)):
        if key in config.hydra.sweeper and not is_typed(config, f"hydra.sweeper.{key}"):
            with read_write(config), open_dict(config):
                config.hydra.sweeper[key] = value


# ---------------------------------------------------------------------- what varies


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _parse(texts: Sequence[str]) -> list[Override]:
    return OverridesParser.create(_loader()).parse_overrides(list(texts))


def _params(config: DictConfig) -> list[str]:
    """Axes that the sweeper has of its own."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [f"{key}={values}" for key, values in params.items()]


def _key_of(group: str) -> str:
    """The key that a group of numbers sets (``loss_k`` → ``loss.k``), else the name itself."""
    loader = _loader()
    options = loader.get_group_options(group, ObjectType.CONFIG)
    return (number_key(group, options, loader.repository) if options else None) or group


def _set_params(config: DictConfig, declared: Mapping[str, Sequence[axes.Scalar]]) -> None:
    with read_write(config), open_dict(config):
        own = OmegaConf.select(config, "hydra.sweeper.params") or {}
        params = {key: axes.as_sweep(values) for key, values in declared.items() if key not in own}
        config.hydra.sweeper.params = {**params, **own}


def _with_all_folds(declaration: TableSpec, typed: Sequence[Override]) -> TableSpec:
    """``fold: [all]`` as the folds of the data set of this command."""
    if declaration.axes.get("fold") != ["all"]:
        return declaration
    constant = [
        o.input_line for o in typed if not o.is_sweep_override() and o.key_or_group not in axes.NOT_AXES
    ]
    config = _loader().load_configuration("config", constant, RunMode.RUN)
    folds = list(range(len(validate(config).data.layout().folds)))
    return declaration.model_copy(update={"axes": {**declaration.axes, "fold": folds}})


def _name_jobs(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Jobs are named by what varies. They are composed anew from these overrides, wherever they run."""
    varying = {override.key_or_group for override in overrides if override.is_sweep_override()}
    constant = {override.key_or_group for override in overrides} - varying
    unnamed = set(config.hydra.job.config.override_dirname.exclude_keys) - varying | constant
    with read_write(config), open_dict(config):
        passed_on = config.hydra.overrides.hydra
        passed_on.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(unnamed))}]")


# ---------------------------------------------------------------------- jobs

Composed = tuple[str, Sequence[str], Optional[Config]]  # directory, overrides, checked configuration


def _compose_jobs(config: DictConfig, overrides: Sequence[Override]) -> list[Composed]:
    """Every job of a grid; of another sweeper's, which are not known yet, those at the ends of its axes.

    A job that is refused for its values fails alone, later, and the others run; where all are refused, or a value is
    no option at all, the command ends before anything is written.
    """
    grid = _is_grid(config)
    lines = _grid(overrides) if grid else _corners(overrides)
    composed: list[Composed] = []
    refusal = None
    here = str(config.hydra.launcher._target_).endswith(".BasicLauncher")
    device = None if here else "cpu"  # where this process trains nothing, it takes no memory of a GPU
    environment = dict(os.environ)
    for line in lines:
        job = _loader().load_sweep_config(config, line)
        name = str(OmegaConf.select(job, "hydra.sweep.subdir"))
        try:
            checked = check(job)
            if checked.task in USE_EPISODES:
                check_inputs(checked, device)
        except UserError as error:
            refusal = refusal or error
            composed.append((name, line, None))
        else:
            composed.append((name, line, checked))
    if not here:  # jobs begin with the environment of this process, which a start of Jittor changes
        os.environ.clear()
        os.environ.update(environment)
    if refusal is not None and not any(checked for _, _, checked in composed):
        raise refusal
    return composed


def _refuse_tasks(jobs: Sequence[Composed]) -> None:
    """Refuse tasks without scores: a sweep compares scores, and training and evaluation have them."""
    for _, _, checked in jobs:
        if checked is not None and checked.task not in ("train", "evaluate"):
            raise UserError(f"task={checked.task} runs once a command, not in a sweep. Leave -m out.")


def _is_grid(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def _grid(overrides: Sequence[Override]) -> list[list[str]]:
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise UserError(f"{override.input_line}: nothing to sweep over.")
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: a grid needs values, not an interval. hydra/sweeper=optuna takes it."
            )
    return BasicSweeper.split_arguments(list(overrides), None)[0]


def _corners(overrides: Sequence[Override]) -> list[list[str]]:
    """Two jobs: the first value of every axis, and the last."""
    first, last = [], []
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            ends_of_axis = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            interval: Any = override.value()
            ends_of_axis = [f"{key}={interval.start}", f"{key}={interval.end}"]
        else:
            ends_of_axis = [override.input_line or ""]
        first.append(ends_of_axis[0])
        last.append(ends_of_axis[-1])
    return [first, last]


def _plan(config: DictConfig, jobs: Sequence[Composed]) -> plan.Plan:
    launcher = config.hydra.launcher
    parallel = max(1, int(launcher.get("n_jobs") or 1))
    if not _is_grid(config):
        return plan.Plan((), int(config.hydra.sweeper.get("n_trials") or 0), parallel)
    planned = plan.mark_duplicates([(n, o, None if c is None else c.model_dump()) for n, o, c in jobs])
    return plan.Plan(tuple(planned), len(planned), parallel)


# ---------------------------------------------------------------------- where


def _directory(config: DictConfig) -> Path:
    """A new directory, or the one that this command goes on with."""
    wanted = Path(config.hydra.sweep.dir).absolute()
    if is_typed(config, "hydra.sweep.dir"):
        make_run_dir(wanted)
        if any((wanted / name).exists() for name in RESULTS):
            raise UserError(
                f"hydra.sweep.dir={wanted}: holds a single run. Give the sweep another directory, or none."
            )
        return wanted
    if not config.resume:
        return create_run_dir(wanted)
    if config.resume is not True:
        raise UserError(
            f"resume={config.resume}: a sweep takes resume=true, or its directory: hydra.sweep.dir=DIR."
        )
    found = latest(wanted)
    if found is None:
        Console().print(
            f"nothing to go on with: there is no {wanted}; starting it", soft_wrap=True, markup=False
        )
        return create_run_dir(wanted)
    return found


def _check_origin(directory: Path, jobs: Sequence[Composed]) -> None:
    """Refuse a directory whose runs have other configurations. Nothing has been written yet."""
    for name, _, checked in jobs:
        before = (results.read(directory / name) or {}).get("config")
        conflicts = differences(before, checked.model_dump()) if checked is not None and before else []
        if conflicts:
            raise UserError(
                f"{directory / name} was run with another configuration: {'; '.join(conflicts)}. "
                "Start this sweep in a directory of its own."
            )


def _print_plan(config: DictConfig, directory: Path, planned: plan.Plan) -> None:
    twice = sum(job.duplicate_of is not None for job in planned.jobs)
    text = (
        f"{planned.count} jobs"
        + (f", {twice} of them run once with another" if twice else "")
        + f" → {directory}"
    )
    if "submitit" in str(config.hydra.launcher._target_):
        text += f"\nlogs of the jobs: {config.hydra.launcher.submitit_folder}"
    Console().print(text, highlight=False, soft_wrap=True, markup=False)


def _check_plugins(config: DictConfig) -> None:
    """A launcher or sweeper that is not installed, with the remedy."""
    for part in ("launcher", "sweeper"):
        target = str(config.hydra[part]._target_)
        try:
            importlib.import_module(target.rpartition(".")[0])
        except ImportError as error:
            choice = config.hydra.runtime.choices.get(f"hydra/{part}", target)
            extra = EXTRAS.get(str(choice).split("_")[0], "cluster")
            raise UserError(
                f"hydra/{part}={choice} is not installed. Run: pip install '.[{extra}]'"
            ) from error
