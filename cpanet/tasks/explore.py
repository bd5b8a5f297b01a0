"""``python run.py task=explore checkpoint=…``: start the network, lay out the page, serve it until Ctrl-C."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np

from cpanet import runtime
from cpanet.config.schema import ExploreConfig
from cpanet.console import log
from cpanet.data.memory import dataset_of
from cpanet.errors import UserError
from cpanet.explore.session import QueryPicture, Session, Support, episodes_file, read_episodes
from cpanet.runtime.gradio_import import import_gradio
from cpanet.tasks.input_checks import check_checkpoint, segmenter_of

FIRST_PORT, PORTS = 7860, 100


def preflight(config: ExploreConfig) -> None:
    """Raises UserError where a checkpoint is needed and not given."""
    check_checkpoint(config)


def run(config: ExploreConfig, directory: Path, resume: bool = False) -> float:
    """Serve the page; everything that it writes is below ``directory``, which is a temporary one.

    Raises UserError where Gradio or the port is missing.
    """
    runtime.prepare(config.device, config.log.verbose, precision=config.precision)
    import_gradio(directory / "uploads")
    from cpanet.explore.page import build_page, launch

    section = config.explore
    port = free_port(section.host, section.port)
    app = build_page(open_session(config), directory / "masks", title(config))
    address = launch(app, section.host, port, section.max_upload_mb, section.browser)
    log(f"the page is at {address}, until Ctrl-C")
    try:
        while not threading.Event().wait(3600):
            pass
    except KeyboardInterrupt:  # the usual end
        log("closed")
    finally:
        app.close(verbose=False)
    return float("nan")


def open_session(config: ExploreConfig) -> Session:
    """Network, data set and episodes; the page does without the last two where they are not there.

    What a prediction needs is compiled, once in a lifetime, before somebody waits for it.
    """
    # one picture at a time is one shape, whatever the number of queries: nothing is compiled while somebody waits
    segmenter = segmenter_of(config, batch_size=1).load()
    file = episodes_file(config.checkpoint)
    episodes = read_episodes(file) if file is not None else {}
    episodes.pop("floor", None)  # another network's
    description = segmenter.description
    epoch = description.path.stem if description is not None and description.path is not None else ""
    try:
        dataset = dataset_of(config.data, 1)
    except UserError as error:
        log(f"without the data set: {error}", "yellow")
        dataset = None
    session = Session(segmenter, dataset, config.fold, episodes, epoch)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    session.segment([Support(picture, picture[..., 0] > 127)], [QueryPicture("first", picture)])
    return session


def title(config: ExploreConfig) -> str:
    """Title of the page, one line."""
    if config.checkpoint is None:
        return f"Prototype comparison without training, {config.backbone.name}"
    path = Path(config.checkpoint)
    name = path.name
    if path.parent.name == "checkpoints" and not path.is_dir():
        name = f"{path.parent.parent.name} ({path.stem})"
    return f"{name}: {config.backbone.name}, {config.ablation.name}"


def free_port(host: str, port: int | None) -> int:
    """``port``, or the first free one from FIRST_PORT on. Raises UserError where it cannot be had."""
    for candidate in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
                return candidate
            except OSError as error:
                reason = error.strerror
    raise UserError(
        f"explore.host={host} explore.port={port}: {reason}. Choose another one, or leave explore.port out."
    )
