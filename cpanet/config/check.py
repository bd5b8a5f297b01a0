"""Checking a composed configuration: every problem at once, naming key, value and what is allowed."""

from __future__ import annotations

import shlex
from typing import Any, Callable

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from cpanet.config.defaults import device_for
from cpanet.config.keys import nearest, resolved, show
from cpanet.config.schema import TASKS, Common, Config
from cpanet.errors import UserError
from cpanet.runtime import precision
from cpanet.section import NO_SUCH_CLASS


def validate(config: DictConfig, further: Callable[[dict[str, Any]], list[str]] | None = None) -> Any:
    """``config`` as its task's class, Hydra's node aside: a :class:`Config` where it trains.

    ``further`` finds problems in the resolved values that the schema does not know of. Raises UserError with every
    problem at once.
    """
    try:
        values = resolved(config, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the configuration cannot be resolved: {error.full_key}: {reason}.") from error
    problems: list[str] = []
    checked: Common | None = None
    schema = TASKS.get(str(values.get("task")), Config)
    try:
        checked = schema.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(dict(problem)) for problem in error.errors()]
    else:
        try:
            precision.resolve(checked.precision, device_for(checked.device))
        except UserError as error:
            problems = [str(error)]
    if further is not None:
        problems += further(values)
    if problems or checked is None:
        raise UserError(_listed(problems))
    return checked


def _sentence(problem: dict[str, Any]) -> str:
    """One of pydantic's errors as ``key = value: what is allowed``."""
    key = ".".join(str(part) for part in problem["loc"])
    kind = problem["type"]
    if kind == NO_SUCH_CLASS:
        return str(problem["msg"])
    if kind == "extra_forbidden":
        likely = nearest(key, known_keys())
        return f"{key}: unknown key." + (f" Did you mean {likely}?" if likely else "")
    if kind == "missing":
        return f"{key}: is missing"
    rule = str(problem["msg"]).replace("Value error, ", "").replace("Input should", "must")
    if kind == "model_type":
        rule = "must be a section of keys and values"
    if kind == "literal_error":
        allowed = [part.strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        likely = nearest(str(problem["input"]), allowed)
        rule = f"must be one of {', '.join(allowed)}" + (f". Did you mean {likely}?" if likely else "")
    if kind == "string_type":
        typed = f"{key}='{show(problem['input'])}'"
        rule = "must be a text" + (
            f": {shlex.quote(typed)}" if isinstance(problem["input"], (int, float)) else ""
        )
    return f"{key} = {show(problem['input'])}: {rule}"


def known_keys() -> list[str]:
    """Every dotted key of the schema."""

    def walk(model: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for each in (kind, *kind.__subclasses__()):  # of a component, every class that has been named
                    found += walk(each, f"{prefix}{name}.")
            else:
                found.append(prefix + name)
        return found

    return list(dict.fromkeys(key for schema in TASKS.values() for key in walk(schema, "")))


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"the configuration has {len(problems)} problems:\n  " + "\n  ".join(problems)
