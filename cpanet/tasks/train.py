"""``task=train``: what can be said before anything is written, and the run itself.

Importing this module starts no Jittor: the check comes first.
"""

from __future__ import annotations

from pathlib import Path

from cpanet import runtime
from cpanet.config import Config
from cpanet.records.run_directory import RunDirectory
from cpanet.tasks.input_checks import check_inputs, read_images


def preflight(config: Config) -> None:
    """Raises UserError for a fold or a number of shots that the data set lacks, for damaged images and weights, for parts of
    the network that cannot be made."""
    check_inputs(config)
    read_images(config)


def run(
    config: Config, directory: Path, resume: bool = False, shared: bool = False, threads: int | None = None
) -> float:
    """Train and evaluate as ``config`` says, into ``directory``; returns the best mIoU on the unseen classes.

    ``resume``: go on from the directory's checkpoint, where there is one, to the same end to the last digit.
    ``shared``: other runs of this process may be alike; what the backbone makes of training images is kept for them.
    ``threads``: CPU threads that the run may use, None for the machine's.
    Raises :class:`UserError` for what the user can put right, :class:`cpanet.engine.Diverged` for a loss that is not
    finite, :class:`cpanet.training.trainer.Interrupted` after Ctrl-C or SIGTERM; ``result.json`` then says so in
    ``status`` and ``reason``.
    """
    try:
        device = runtime.prepare(config.device, config.log.verbose, threads, config.precision)
        from cpanet.training.run import run as train

        return train(config, directory, device, resume, shared)
    except KeyboardInterrupt as error:
        if not error.args:
            error.args = (f"To go on: {RunDirectory(directory).resume_command}",)
        raise
