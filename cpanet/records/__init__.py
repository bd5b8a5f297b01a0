"""What a run leaves behind: tables, TensorBoard events, figures, ``result.json``."""

from cpanet.records.run_directory import RunDirectory, environment_facts, git_commit
from cpanet.records.tensorboard import TensorBoard

__all__ = ["RunDirectory", "TensorBoard", "environment_facts", "git_commit"]
