"""Whether a task has what it works on, seen before anything is written: names and headers only."""

from __future__ import annotations

from pathlib import Path

from cpanet.checkpoint.files import check_file
from cpanet.config.schema import Common, PredictConfig, UseConfig
from cpanet.errors import UserError


def check_inputs(config: Common) -> None:
    """Raises UserError for weights, a checkpoint, supports or queries that are not given, not there or damaged."""
    trained = isinstance(config, UseConfig) and config.checkpoint is not None and config.method == "cpanet"
    if not trained and config.backbone.weights not in ("auto", "random"):
        check_file(Path(config.backbone.weights).expanduser())
    if not isinstance(config, UseConfig):
        return
    if config.checkpoint is None and config.method != "prototype":
        raise UserError(
            f"checkpoint = null: task={config.task} needs one: checkpoint=RUN_DIR or a .safetensors or .pth file; "
            "or method=prototype, which needs no training."
        )
    if config.task == "export" and config.method == "prototype":
        raise UserError("task=export writes trained networks: give checkpoint=RUN_DIR of one.")
    if isinstance(config, PredictConfig):
        from cpanet.predict.queries import find_queries
        from cpanet.predict.supports import find_supports

        find_supports(config.support)
        find_queries(config.query)
