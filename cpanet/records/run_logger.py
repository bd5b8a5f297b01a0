"""Sends the values of a run to the terminal and its log, tables, TensorBoard and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import current_process
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cpanet.console import console, log
from cpanet.records import pictures
from cpanet.records.run_directory import RunDirectory
from cpanet.records.tensorboard import TensorBoard


class RunLogger:
    """Receives values, changes none. Scores are fractions, as ``result.json`` holds them.

    ``going_on_from``: the iteration that an interrupted run goes on from; curves after it do not count.
    """

    def __init__(
        self, records: RunDirectory, hyperparameters: Mapping[str, Any], going_on_from: int | None
    ) -> None:
        self.records = records
        self._board = TensorBoard(records.path, purge_step=going_on_from)
        self._board.hyperparameters(hyperparameters)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            # jobs side by side share one terminal, and a file wants no bar
            disable=current_process().name != "MainProcess" or not console.is_terminal,
        )
        self._task: Any = None

    @contextmanager
    def epoch(self, epoch: int, epochs: int, done: int, batches: int) -> Iterator[None]:
        """A progress bar for the epoch after ``epoch`` completed ones, ``done`` of whose ``batches`` are done."""
        with self._progress:
            self._task = self._progress.add_task(
                f"epoch {epoch + 1}/{epochs}", total=batches, completed=done, loss=float("nan")
            )
            try:
                yield
            finally:
                self._progress.remove_task(self._task)

    def step(self, step: Any) -> None:
        """Losses, learning rate and time of a training step (:class:`cpanet.engine.Step`)."""
        self._board.step(step)
        self._progress.update(self._task, advance=1, loss=step.total)

    def untrained(self, scores: Mapping[str, Any]) -> None:
        """The network before its first step: the first point of its curves."""
        self._board.evaluation(0, scores, scores)
        log(f"untrained network: {_words(scores)}")

    def baseline(self, scores: Mapping[str, Any]) -> None:
        """The training-free baseline on the same episodes: a level line beside the curves."""
        self._board.baseline(0, scores)
        log(f"training-free baseline: {_words(scores)}")

    def evaluation(
        self,
        state: Any,
        loss: float | None,
        epochs: int,
        better: bool,
        figures: Sequence[pictures.EpisodeFigure],
    ) -> None:
        """The last scores of a training's ``TrainingState``, which are the best so far where ``better``."""
        scores = state.last
        self._board.evaluation(state.iteration, scores, state.best)
        if state.floor is not None:
            self._board.baseline(state.iteration, state.floor)
        for i, figure in enumerate(figures):
            name = figure.caption.replace(": ", "/")
            self._board.picture(f"episodes/{i + 1}/{name}", pictures.captioned_strip(figure), state.iteration)
        trained = "" if loss is None else f"epoch {scores['epoch']}/{epochs}: loss {loss:.4f}, "
        log(trained + _words(scores) + ("  ← best" if better else ""))
        self.records.write_rows("metrics.csv", state.rows)
        episodes = [*state.floor_episodes, *state.best_episodes, *state.last_episodes]
        self.records.write_rows("episodes.csv", episodes)

    def warning(self, text: str) -> None:
        """Log ``text`` as a warning and keep it for the record."""
        log(f"Warning: {text}", "yellow")

    def figures(
        self,
        steps: Sequence[Any],
        rows: Sequence[Mapping[str, Any]],
        episodes: Sequence[pictures.EpisodeFigure],
    ) -> None:
        """``figures/`` of a completed run: curves, a page of episodes, and their pictures one by one."""
        folder = self.records.figures
        try:
            pictures.save_curves(folder / "curves.png", steps, rows)
            pictures.save_grid(folder / "episodes.png", episodes)
            pictures.save_episodes(folder / "episodes", episodes)
        except OSError as error:  # everything that counts has been written
            self.warning(f"the figures cannot be written: {error}")

    def close(self, completed: bool) -> None:
        """No more values come."""
        self._board.close(completed)


def _words(scores: Mapping[str, Any]) -> str:
    return f"mIoU {scores['miou']:.4f}, FB-IoU {scores['fb_iou']:.4f}"
