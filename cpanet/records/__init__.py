"""Records of a run: ``result.json``, tables, TensorBoard events, figures.

What reads a record imports no TensorBoard; it comes once it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpanet.records.run_directory import RunDirectory, git_commit, peak_memory_mb

if TYPE_CHECKING:
    from cpanet.records.tensorboard import TensorBoard

__all__ = ["RunDirectory", "TensorBoard", "git_commit", "peak_memory_mb"]


def __getattr__(name: str) -> Any:
    if name == "TensorBoard":
        from cpanet.records.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
