"""The loop over epochs by itself, on parts that only count: what comes when, and where it stops."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from cpanet import engine
from cpanet.metrics import Counts, Scores
from cpanet.training.checkpoints import Learner, TrainingState
from cpanet.training.trainer import Interrupted, Trainer
from tests.hydra_app import compose

CONFIG = compose("profile=tiny", "data=embedded", "train.epochs=3", "evaluate.every=2")
UNTRAINED = ["evaluate network", "evaluate baseline"]


class Parts:
    """Everything around the loop. ``seen`` keeps in which order it was asked for; ``miou`` are the scores to come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *miou: float) -> None:
        self.seen: list[Any] = []
        self.drawn: list[Any] = []
        self.miou = iter(miou)
        self.stop_after: int | None = None  # this iteration
        monkeypatch.setattr(engine, "train_epoch", self.steps)

    def trainer(self, state: TrainingState | None = None, optimizer: Any = "some") -> Trainer:
        ignore = lambda *_: None  # noqa: E731
        batches = SimpleNamespace(
            per_epoch=2, epoch=lambda epoch, start: iter(range(2 * epoch + start, 2 * epoch + 2))
        )
        evaluator = SimpleNamespace(
            dataset=SimpleNamespace(classes=("a",), names=("a/1.png",)),
            defect_pixels=10,
            evaluate=self.evaluate,
            figures=lambda model, count: [model],
        )
        checkpoints = SimpleNamespace(
            save=lambda state: self.seen.append(f"save {state.epoch}.{state.batch}"),
            save_best=lambda: self.seen.append("save best"),
        )
        logger = SimpleNamespace(
            epoch=lambda *_: nullcontext(),
            step=lambda step: self.seen.append(step.iteration),
            evaluation=lambda state, loss, epochs, better, figures: self.drawn.extend(figures),
            untrained=ignore,
            baseline=ignore,
            warning=ignore,
        )
        parts: Any = (batches, evaluator, checkpoints, logger)
        learner: Any = Learner("network", optimizer, None)
        return Trainer(CONFIG, learner, "baseline", *parts, state or TrainingState())

    def stopped(self) -> bool:
        return self.stop_after is not None and self.stop_after in self.seen

    def steps(self, model: Any, optimizer: Any, batches: Any, *others: Any, pause: Any) -> Any:
        for batch in batches:
            yield engine.Step(batch, 1.0, None, 1.0, 0.1, 0.0)
            if pause():
                return

    def evaluate(self, model: str, before_each: Any) -> engine.Evaluation:
        before_each()
        self.seen.append(f"evaluate {model}")
        miou = next(self.miou)
        episode: Any = SimpleNamespace(class_index=0, query=0, supports=())
        results = [engine.EpisodeResult(episode, Counts(5, 15, 80, 95))]
        return engine.Evaluation(results, Scores(miou, miou, {0: miou}))


def test_epochs_are_trained_evaluated_and_saved_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(monkeypatch, 0.1, 0.2, 0.5, 0.4)
    trainer = parts.trainer()
    trainer.run()
    assert parts.seen == [
        *UNTRAINED,
        *(0, 1, "save 1.0"),
        *(2, 3, "evaluate network", "save best", "save 2.0"),
        *(4, 5, "evaluate network", "save 3.0"),
    ]
    state = trainer.state
    assert [row["epoch"] for row in state.rows] == [0, 2, 3]
    assert (state.untrained or {})["miou"] == 0.1
    assert (state.floor or {})["miou"] == 0.2
    assert (state.best or {})["epoch"] == 2
    assert (state.last or {})["epoch"] == 3
    assert state.iteration == 6


def test_a_run_goes_on_in_the_middle_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(monkeypatch, 0.1, 0.2)
    parts.stop_after = 2
    first = parts.trainer()
    with pytest.raises(Interrupted):
        first.run(parts.stopped)
    assert parts.seen == [*UNTRAINED, 0, 1, "save 1.0", 2, "save 1.1"]
    rest = Parts(monkeypatch, 0.5, 0.4)
    rest.trainer(first.state).run()
    assert rest.seen[:2] == [3, "evaluate network"]


def test_a_stop_in_an_evaluation_leaves_it_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(monkeypatch, 0.1, 0.2)
    parts.stop_after = 3
    trainer = parts.trainer()
    with pytest.raises(Interrupted):
        trainer.run(parts.stopped)
    assert trainer.state.last is None
    assert parts.seen[-1] == "save 1.2"


def test_without_an_optimiser_there_is_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(monkeypatch, 0.3)
    trainer = parts.trainer(optimizer=None)
    trainer.run()
    assert parts.seen == ["evaluate network"]
    assert trainer.state.best == trainer.state.last
    assert trainer.state.floor is None


def test_pictures_are_drawn_with_the_weights_that_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    class Average:
        def swapped_in(self) -> Any:
            return nullcontext(seen.append("averaged"))

    parts = Parts(monkeypatch, 0.1, 0.2, 0.5, 0.4)
    seen = parts.seen
    trainer = parts.trainer()
    trainer.learner = trainer.learner._replace(average=Average())  # type: ignore[arg-type]
    trainer.evaluator.figures = lambda model, count: seen.append("draw") or []  # type: ignore[method-assign,func-returns-value]
    trainer.run()
    at = seen.index("draw")
    assert seen[at - 2 : at] == ["averaged", "evaluate network"]
