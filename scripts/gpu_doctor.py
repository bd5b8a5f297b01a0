"""Does this GPU compute what it should, at every precision, and does it learn? ``python -m scripts.gpu_doctor --out DIR``"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from scripts import stages

FILE = "doctor.json"


def tasks(options: argparse.Namespace) -> list[stages.Task]:
    """The doctor, once."""
    command = stages.python(
        "cpanet.doctor", "--device", options.device, "--precision", "all", "--json", options.out / FILE
    )
    return [stages.Task("doctor", command, makes=options.out / FILE, needs=120)]


def conclude(options: argparse.Namespace, console: Console) -> bool:
    """The doctor's own last word stands in its log; its exit status is the verdict."""
    for line in stages.last_lines(options.out / "logs" / "doctor.log")[-1:]:
        console.print(line, markup=False)
    return stages.Ledger.of(options.out).tasks.get("doctor", {}).get("status") == stages.DONE


STAGE = stages.Stage("doctor", __doc__ or "", lambda made: None, tasks, conclude, gate=True)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_doctor", __doc__ or "", [STAGE]))
