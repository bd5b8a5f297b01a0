"""The resolved configuration, typed. What a key means stands in conf/; what it may be stands here.

(pydantic reads these annotations at run time, on Python 3.9 too: hence ``Optional``.)
"""

from typing import Annotated, Literal, Optional, Union

from pydantic import AfterValidator, ConfigDict, Field, SerializeAsAny, model_validator

from cpanet import losses
from cpanet.data_section import DataSection
from cpanet.protocol import Protocol
from cpanet.recipe import EpisodeTransform, Optimizer, Schedule
from cpanet.section import Count, NonNegative, Positive, Section, Text


def _threshold(value: Union[float, str]) -> Union[float, str]:
    if value != "auto" and not (isinstance(value, (int, float)) and 0 < value < 1):
        raise ValueError("must be auto, or a probability above 0 and below 1")
    return value


FeatureNorm = Literal["plain", "rms", "position", "standard"]
Stage = Literal["f3", "f2", "both", "f3_unpooled", "both_unpooled"]


class Built(Section):
    """A section that a class is built from: ``_target_``, its arguments, which the class checks, and the keys named here."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _names_its_class(self) -> "Built":
        target = (self.model_extra or {}).get("_target_")
        if not isinstance(target, str) or not target:
            raise ValueError("must name its class: _target_")
        return self


class BackboneSection(Built):
    name: Text
    label: Optional[Text] = None  # in tables; None: the name
    imagenet: Optional[Text] = None  # address of its ImageNet weights, or the name of a file that has none
    batch_norm: Optional[bool] = None  # None: not known
    weights: Text  # auto, random or a path
    lr: Positive
    epochs: Count


class Ablation(Section):
    """The parts that the head is made of."""

    name: Text
    label: Optional[Text] = None  # in tables; None: the name
    prototype: Built
    decoder: Built
    auxiliary: Optional[Built]


class LossSection(Section):
    k: NonNegative


class Model(Section):
    width: Annotated[int, Field(ge=16, multiple_of=16)]  # the channel attention works on a sixteenth of it
    fused: bool = True


class Init(Section):
    head: Literal["released", "kaiming_normal", "prototype"]
    projection: Literal["random", "principal"] = (
        "random"  # of a prototype start; runs from before it was a choice: random
    )


class Average(Section):
    ema: Optional[Annotated[float, Field(gt=0, lt=1)]]
    untrained: Annotated[float, Field(ge=0, lt=1)] = 0.0


class BaselineSection(Section):
    stage: Stage = "f3"


class Recipe(Section):
    name: Text
    optimizer: SerializeAsAny[Optimizer]
    schedule: SerializeAsAny[Schedule]
    init: Init
    features: FeatureNorm
    clip_grad_norm: Optional[Positive]
    dropout: bool
    loss: SerializeAsAny[losses.Loss]
    average: Average
    sampling: Literal["image", "class"]
    episodes: SerializeAsAny[EpisodeTransform]
    prior: Optional[Stage] = None  # of runs from before it was a choice


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
    every_iterations: Optional[Count]


class Common(Section):
    """The keys of every task."""

    task: Literal["train", "predict", "evaluate", "export", "explore"]
    method: Literal["cpanet", "prototype"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"]
    fold: Annotated[int, Field(ge=0)]
    shot: Count
    profile: Text
    backbone: BackboneSection
    ablation: Ablation
    loss: LossSection
    protocol: Protocol
    model: Model
    data: SerializeAsAny[DataSection]
    recipe: Recipe
    train: Train
    evaluate: Evaluate
    log: Log
    baseline: BaselineSection = BaselineSection()


class Config(Common):
    """A training run, completely described. Frozen; ``model_dump()`` gives the plain dictionary that records keep."""

    task: Literal["train"]
    checkpoint: Checkpoint


class UseConfig(Common):
    """A task that uses a trained network; without a checkpoint the training-free method."""

    checkpoint: Optional[Text]


class Predict(Section):
    threshold: Annotated[Union[float, str], AfterValidator(_threshold)]
    tiling: Union[bool, Literal["auto"]]
    tile: Optional[Annotated[int, Field(ge=32)]]
    overlap: Annotated[float, Field(ge=0, le=0.75)]
    min_area: Count
    category: Optional[Text]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    overlays: bool
    probabilities: bool
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of runs from before it was a choice


class PredictConfig(UseConfig):
    """Pictures marked from a few annotated ones."""

    task: Literal["predict"]
    support: Optional[Text]
    query: Optional[Text]
    clean: Optional[Text] = None  # of runs from before it was a choice
    predict: Predict


class EvaluateDraws(Evaluate):
    episode_seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]


class EvaluateConfig(UseConfig):
    """A checkpoint tested on any data set, fold and number of shots."""

    task: Literal["evaluate"]
    evaluate: EvaluateDraws


class Export(Section):
    dynamic: bool
    check: bool


class ExportConfig(UseConfig):
    """A checkpoint written as ONNX."""

    task: Literal["export"]
    export: Export


class Explore(Section):
    host: Text
    port: Optional[Annotated[int, Field(ge=1, le=65535)]]
    max_upload_mb: Annotated[int, Field(ge=1, le=1024)]
    browser: bool


class ExploreConfig(UseConfig):
    """A page to try supports and queries on."""

    task: Literal["explore"]
    explore: Explore


TASKS: dict[str, type[Common]] = {
    "train": Config,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "explore": ExploreConfig,
}
