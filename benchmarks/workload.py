"""The workload of both sides: one network, one set of weights, one batch of episodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmarks.oracle import Inputs, episode_inputs
from cpanet import options
from cpanet.errors import UserError
from cpanet.runtime.precision import LEVELS, offered
from cpanet.runtime.processor import available_cpus

# The recipe's weights are random, not trained: at the published rate they would run to NaN in a few steps. So
# the optimiser does all its work, and moves nothing.
LEARNING_RATE = 1e-12
LARGEST = "largest"  # in place of a number of episodes: as many as the device's memory holds


@dataclass(frozen=True)
class Workload:
    """Sizes, device and precision of a measurement. ``size`` is the side of the square images in pixels."""

    backbone: str = "vgg16"
    size: int = 200
    batch: int = 2
    shot: int = 1
    width: int = 256
    device: str = "cpu"
    threads: int = 1
    k: float = 0.4
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 8:
            raise UserError(f"--size {self.size}: must be a multiple of 8, at least 32.")
        if self.width < 16 or self.width % 16:
            raise UserError(f"--width {self.width}: must be a multiple of 16.")
        for name in ("batch", "shot", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1.")
        if self.precision not in offered(self.device):
            raise UserError(
                f"--precision {self.precision}: --device {self.device} offers {', '.join(offered(self.device))}."
            )

    @property
    def images(self) -> int:
        """Images in a step: every query and its supports."""
        return self.batch * (1 + self.shot)

    def inputs(self) -> Inputs:
        """The batch of episodes: NumPy arrays, the same on every machine."""
        return episode_inputs(self.seed, self.batch, self.shot, self.size)

    def stem(self, benchmark: str, batch: int | str | None = None) -> str:
        """Name of a result file; ``batch`` as it was asked for. A CPU's usual precision, float32, is not said."""
        precision = "" if (self.device, self.precision) == ("cpu", "fp32") else f"-{self.precision}"
        sizes = f"{self.size}-b{batch or self.batch}-s{self.shot}"
        return f"{benchmark}-{self.backbone}-{sizes}-{self.device}{precision}"


def parser(benchmark: str, about: str, precisions: bool = False) -> argparse.ArgumentParser:
    """Command line shared by the benchmarks; with ``--precision`` for those that measure several.

    ``about``: the module's docstring, whose first line describes it.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=about.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        conflict_handler="resolve",
    )
    made.add_argument("--backbone", choices=options.names("backbone"), default="vgg16")
    made.add_argument("--size", type=int, default=200, metavar="PIXELS", help="side of the images")
    made.add_argument("--batch", type=int, default=2, help="episodes in a step")
    made.add_argument("--shot", type=int, default=1, help="support images in an episode")
    made.add_argument("--width", type=int, default=256, help="channels of the head; less for a quick look")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, default=available_cpus(), help="CPU threads of either side")
    where = "where the JSON goes, a folder where several are measured; default: benchmarks/results/"
    made.add_argument("--out", metavar="FILE", help=where)
    if precisions:
        levels = tuple(LEVELS)
        made.add_argument(
            "--precision", nargs="+", choices=levels, help="default: all that the device offers"
        )
    return made


def run_parser(benchmark: str, about: str, overrides: str = "as for run.py") -> argparse.ArgumentParser:
    """Command line of the benchmarks that take the overrides of ``run.py``."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=about.splitlines()[0],
        conflict_handler="resolve",
    )
    made.add_argument("overrides", nargs="*", help=overrides)
    made.add_argument("--out", metavar="FILE", help="where the JSON goes; default: benchmarks/results/")
    return made


def workloads(arguments: argparse.Namespace) -> list[Workload]:
    """What a command line asks for, by default at every precision that the device offers; without ``--precision`` in fp32.

    Of :data:`LARGEST` batches one episode.
    """
    names = {field.name for field in fields(Workload)} - {"precision"}
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if name in names}
    if given["batch"] == LARGEST:
        given["batch"] = 1
    asked = Workload(**given)
    if not hasattr(arguments, "precision"):
        return [asked]
    chosen: Sequence[str] = arguments.precision or offered(asked.device)
    return [replace(asked, precision=precision) for precision in dict.fromkeys(chosen)]
