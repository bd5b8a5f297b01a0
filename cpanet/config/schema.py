"""The resolved configuration, typed. What a key means stands in conf/; what it may be stands here.

(pydantic reads these annotations at run time, on Python 3.9 too: hence ``Optional``.)
"""

from typing import Annotated, Literal, Optional, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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
    name: Literal[
        "corrected",
        "released",
        "released_prototype_average",
        "released_aux_loss",
        "released_backbone_mode",
        "released_aux_padding",
    ]
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
    mask_threshold: Optional[Annotated[int, Field(ge=0, le=254)]]  # grey above it is defect
    folds: Optional[Annotated[int, Field(ge=2)]]


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
    projection: Literal["random", "principal"] = (
        "random"  # of a prototype start; runs from before it was a choice: random
    )


class LossTerms(Section):
    dice: NonNegative
    focal_gamma: NonNegative
    foreground: Positive


class Average(Section):
    ema: Optional[Annotated[float, Field(gt=0, lt=1)]]


class Recipe(Section):
    name: Literal["paper", "fast", "steel"]
    optimizer: Optimizer
    schedule: Schedule
    init: Init
    features: Literal["plain", "rms", "position", "standard"]
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
    every_iterations: Optional[Count]


class Common(Section):
    """What every task has."""

    task: Literal["train", "predict", "evaluate", "export", "explore"]
    method: Literal["cpanet", "prototype"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"]
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


class Config(Common):
    """A training run, completely described. Frozen; ``model_dump()`` gives the plain dictionary that records keep."""

    task: Literal["train"]
    checkpoint: Checkpoint


class UseConfig(Common):
    """A task that uses a trained network; without a checkpoint the training-free method."""

    checkpoint: Optional[Text]


class Predict(Section):
    threshold: Annotated[float, Field(gt=0, lt=1)]
    tiling: Union[bool, Literal["auto"]]
    tile: Optional[Annotated[int, Field(ge=32)]]
    overlap: Annotated[float, Field(ge=0, le=0.75)]
    min_area: Count
    category: Optional[Text]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    overlays: bool
    probabilities: bool


class PredictConfig(UseConfig):
    """Pictures marked from a few annotated ones."""

    task: Literal["predict"]
    support: Optional[Text]
    query: Optional[Text]
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
