"""What both sides compute: one network, one set of weights, one batch of episodes."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields
from typing import Any

from cpanet.errors import UserError
from cpanet.runtime.threads import available_cpus
from tests.oracle import Inputs, episode_inputs

BACKBONES = (
    "vgg16",
    "vgg16_bn",
    *(f"resnet{depth}{stem}" for depth in (50, 101, 152) for stem in ("", "_deep")),
)
# The recipe's weights are random, not trained: at the published rate they would run to NaN in a few steps. So
# the optimiser does all its work, and moves nothing.
LEARNING_RATE = 1e-12


@dataclass(frozen=True)
class Workload:
    """Sizes and device of a measurement. ``size`` is the side of the square images in pixels."""

    backbone: str = "vgg16"
    size: int = 200
    batch: int = 2
    shot: int = 1
    width: int = 256
    device: str = "cpu"
    threads: int = 1
    k: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 8:
            raise UserError(f"--size {self.size}: must be a multiple of 8, at least 32.")
        if self.width < 16 or self.width % 16:
            raise UserError(f"--width {self.width}: must be a multiple of 16.")
        for name in ("batch", "shot", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1.")

    def inputs(self) -> Inputs:
        """The batch of episodes: NumPy arrays, the same on every machine."""
        return episode_inputs(self.seed, self.batch, self.shot, self.size)

    def stem(self, benchmark: str) -> str:
        """Name of a result file."""
        return f"{benchmark}-{self.backbone}-{self.size}-b{self.batch}-s{self.shot}-{self.device}"

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def parser(description: str, module: str) -> argparse.ArgumentParser:
    """Command line shared by the benchmarks."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    made.add_argument("--size", type=int, default=200, metavar="PIXELS", help="side of the images")
    made.add_argument("--batch", type=int, default=2, help="episodes in a step")
    made.add_argument("--shot", type=int, default=1, help="support images in an episode")
    made.add_argument(
        "--width", type=int, default=256, help="channels of the head; less only for a quick look"
    )
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, default=available_cpus(), help="CPU threads of either side")
    made.add_argument("--out", metavar="FILE", help="where the JSON goes; default: in benchmarks/results/")
    return made


def workload(arguments: argparse.Namespace) -> Workload:
    """The workload that a command line asks for."""
    names = {field.name for field in fields(Workload)}
    given: dict[str, str | int | float] = {k: v for k, v in vars(arguments).items() if k in names}
    return Workload(**given)  # type: ignore[arg-type]
