"""Sections of the configuration as classes, and the sections that name their class themselves.

A kind of component (an optimiser, a schedule) derives from :class:`Component`; its classes derive from that kind, inside
this package or outside it. Their fields are the section's keys, checked before anything is written.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from cpanet import targets
from cpanet.errors import UserError

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]

NO_SUCH_CLASS = "no_such_class"  # a problem whose message says everything


class Section(BaseModel):
    """Typed, complete and frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Component(Section):
    """An object whose section names its class as ``_target_``; the other keys are the class's fields.

    Its module is imported when a configuration is checked, before Jittor is started: reach Jittor as ``runtime.jt`` in
    methods (``from cpanet import runtime``).
    """

    KEY: ClassVar[str]  # the section, of a kind
    BASE: ClassVar[str] = ""  # base of the kind's classes, where that is not the kind itself

    _target: str = ""  # as the configuration names the class

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_class(cls, value: Any, handler: Any) -> Any:
        if not isinstance(value, Mapping):
            return handler(value)
        if not value.get(targets.KEY):
            if Component in cls.__bases__:
                raise ValueError(f"must name its class: {targets.KEY}")
            return handler(value)
        try:
            found = targets.class_of(value, cls, cls.KEY)
        except UserError as error:
            raise PydanticCustomError(NO_SUCH_CLASS, "{problem}", {"problem": str(error)}) from error
        fields = {key: entry for key, entry in value.items() if key != targets.KEY}
        known = fields.keys() <= found.model_fields.keys()
        # any other key is refused by its name
        made = targets.call(value[targets.KEY], fields) if known else found.model_validate(fields)
        made._target = value[targets.KEY]
        return made

    @model_serializer(mode="wrap")
    def _with_its_class(self, handler: Any) -> dict[str, Any]:
        return {targets.KEY: self._target or targets.path_of(type(self)), **handler(self)}
