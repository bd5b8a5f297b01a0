"""The resolved configuration, typed. What a key means stands in conf/; what it may be stands here.

(pydantic reads these annotations at run time, on Python 3.9 too: hence ``Optional``.)
"""

from typing import Annotated, Any, Literal, Optional

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cpanet.config.keys import nearest, show
from cpanet.errors import UserError

# Folds of the data sets whose classes are fixed; a folder's are known once it is read.
FOLDS = {"fssd12": 3, "embedded": 3, "metal8": 4}
SMALLEST_CLASS = {"fssd12": 50, "metal8": 32}  # images


def _multiple_of_8(size: int) -> int:
    if size % 8:
        raise ValueError(f"must be a multiple of 8, such as {max(32, round(size / 8) * 8)}")
    return size


Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Backbone(Section):
    name: Literal[
        "vgg16",
        "vgg16_bn",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet50_deep",
        "resnet101_deep",
        "resnet152_deep",
    ]
    weights: Text  # auto, random or a path
    lr: Positive
    epochs: Count


class Ablation(Section):
    name: Literal["none", "cpp", "sa", "ssa", "cpp_sa", "cpp_ssa", "sa_ssa", "full"]
    cpp: bool
    sa: bool
    ssa: bool


class Loss(Section):
    k: NonNegative


class Protocol(Section):
    name: Literal["corrected", "released"]
    prototype_average: Literal["shots", "batch"]
    aux_loss: Literal["mean", "last"]
    backbone_mode: Literal["eval", "train"]
    aux_padding: Literal["ignore", "background"]


class Model(Section):
    width: Annotated[int, Field(ge=16, multiple_of=16)]  # the channel attention works on a sixteenth of it


class Data(Section):
    name: Literal["fssd12", "embedded", "metal8", "folder"]
    root: Optional[Text]
    image_size: Annotated[int, Field(ge=32, le=1024), AfterValidator(_multiple_of_8)]
    workers: Annotated[int, Field(ge=0, le=256)]
    mask_threshold: Optional[Annotated[int, Field(ge=1, le=255)]]
    folds: Optional[Count]


class Optimizer(Section):
    name: Literal["sgd", "adamw"]
    lr: Positive
    momentum: Fraction
    weight_decay: NonNegative
    head_lr_multiplier: Positive


class Schedule(Section):
    name: Literal["poly", "cosine"]
    power: Positive
    warmup_iterations: Annotated[int, Field(ge=0)]


class Init(Section):
    head: Literal["released", "kaiming_normal", "prototype"]


class LossTerms(Section):
    dice: NonNegative
    focal_gamma: NonNegative


class Average(Section):
    ema: Optional[Annotated[float, Field(gt=0, lt=1)]]


class Recipe(Section):
    name: Literal["paper", "fast"]
    optimizer: Optimizer
    schedule: Schedule
    init: Init
    clip_grad_norm: Optional[Positive]
    dropout: bool
    loss: LossTerms
    average: Average
    sampling: Literal["image", "class"]


class Train(Section):
    epochs: Count
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    iterations_per_epoch: Optional[Count]  # None: every training image once


class Evaluate(Section):
    every: Count  # epochs
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    episodes: Optional[Count]  # None: every test image once
    episode_seed: Annotated[int, Field(ge=0, lt=2**32)]


class Log(Section):
    overlays: Annotated[int, Field(ge=0)]
    verbose: bool


class Checkpoint(Section):
    every_minutes: Positive


class Config(Section):
    """A run, completely described. Frozen; ``model_dump()`` gives the plain dictionary that records keep."""

    task: Literal["train"]
    method: Literal["cpanet"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    fold: Annotated[int, Field(ge=0)]
    shot: Count
    profile: Literal["paper", "quick", "tiny"]
    backbone: Backbone
    ablation: Ablation
    loss: Loss
    protocol: Protocol
    model: Model
    data: Data
    recipe: Recipe
    train: Train
    evaluate: Evaluate
    log: Log
    checkpoint: Checkpoint


def validate(config: DictConfig) -> Config:
    """``config`` as a :class:`Config`, Hydra's node aside. Raises UserError with every problem at once."""
    try:
        values: Any = OmegaConf.to_container(config.copy(), resolve=False)
        values.pop("hydra", None)
        values = OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the configuration cannot be resolved: {error.full_key}: {reason}.") from error
    problems: list[str] = []
    checked: Optional[Config] = None
    try:
        checked = Config.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(dict(problem)) for problem in error.errors()]
    problems += _against_data(values)
    if problems or checked is None:
        raise UserError(_listed(problems))
    return checked


def _against_data(values: dict[str, Any]) -> list[str]:
    """What the data set rules out, as far as it is known before it is read."""
    data = values.get("data")
    if not isinstance(data, dict):
        return []
    name, fold, shot = data.get("name"), values.get("fold"), values.get("shot")
    problems = []
    folds = data.get("folds") if name == "folder" else FOLDS.get(str(name))
    if type(fold) is int and type(folds) is int and fold >= folds > 0:
        problems.append(f"fold = {fold}: data set {name} has folds {', '.join(map(str, range(folds)))}")
    smallest = SMALLEST_CLASS.get(str(name))
    if type(shot) is int and smallest is not None and shot >= smallest:
        problems.append(
            f"shot = {shot}: the smallest class of {name} has {smallest} images and the query is one of them;"
            f" at most {smallest - 1}"
        )
    if name == "folder" and data.get("root") is None:
        problems.append("data.root = null: data=folder needs the folder's path; give data.root=PATH")
    return problems


def _sentence(problem: dict[str, Any]) -> str:
    """One of pydantic's errors as ``key = value: what is allowed``."""
    key = ".".join(str(part) for part in problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        likely = nearest(key, known_keys())
        return f"{key}: unknown key." + (f" Did you mean {likely}?" if likely else "")
    if kind == "missing":
        return f"{key}: is missing"
    rule = str(problem["msg"]).replace("Value error, ", "").replace("Input should", "must")
    if kind == "literal_error":
        allowed = [part.strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        likely = nearest(str(problem["input"]), allowed)
        rule = f"must be one of {', '.join(allowed)}" + (f". Did you mean {likely}?" if likely else "")
    return f"{key} = {show(problem['input'])}: {rule}"


def known_keys() -> list[str]:
    """Every dotted key of the schema."""

    def walk(model: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += walk(kind, f"{prefix}{name}.")
            else:
                found.append(prefix + name)
        return found

    return walk(Config, "")


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"the configuration has {len(problems)} problems:\n  " + "\n  ".join(problems)
