"""The workload of both sides: one network, one set of weights, one batch of episodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
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

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def parser(description: str, module: str, precisions: bool = False) -> argparse.ArgumentParser:
    """Command line shared by the benchmarks; with ``--precision`` for those that measure several."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--backbone", choices=options.names("backbone"), default="vgg16")
    made.add_argument("--size", type=int, default=200, metavar="PIXELS", help="side of the images")
    made.add_argument("--batch", type=int, default=2, help="episodes in a step")
    made.add_argument("--shot", type=int, default=1, help="support images in an episode")
    made.add_argument(
        "--width", type=int, default=256, help="channels of the head; less only for a quick look"
    )
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, default=available_cpus(), help="CPU threads of either side")
    where = "; a folder where several are measured" if precisions else ""
    made.add_argument(
        "--out", metavar="FILE", help=f"where the JSON goes{where}; default: in benchmarks/results/"
    )
    if precisions:
        made.add_argument(
            "--precision", nargs="+", choices=tuple(LEVELS), help="default: all that the device offers"
        )
    return made


def batch_or_largest(text: str) -> int | str:
    """The value of a ``--batch`` that may also be :data:`LARGEST`."""
    if text == LARGEST:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number or {LARGEST!r}, not {text!r}") from None


def workload(arguments: argparse.Namespace) -> Workload:
    """The workload that a command line asks for, in fp32; of :data:`LARGEST` batches one episode."""
    names = {field.name for field in fields(Workload)} - {"precision"}
    given: dict[str, Any] = {k: v for k, v in vars(arguments).items() if k in names}
    if given.get("batch") == LARGEST:
        given["batch"] = 1
    return Workload(**given)


def workloads(arguments: argparse.Namespace) -> list[Workload]:
    """:func:`workload` at every precision that is asked for, by default at all that the device offers."""
    asked = workload(arguments)
    chosen: Sequence[str] = getattr(arguments, "precision", None) or offered(asked.device)
    return [replace(asked, precision=precision) for precision in dict.fromkeys(chosen)]
