"""The two loops: one epoch of training, one evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cpanet.data import Batch, DefectDataset, Episode
from cpanet.errors import UserError
from cpanet.feature_cache import FeatureBatch, ImageFeatures
from cpanet.losses import CROSS_ENTROPY, Loss
from cpanet.metrics import Counts, Scores, episode_counts, summarise
from cpanet.recipe import WeightAverage, gradient_sum, set_learning_rate
from cpanet.runtime import jt


class Diverged(UserError):
    """Loss or gradient is not finite; the message names the iteration."""

    def __init__(self, what: str, iteration: int) -> None:
        super().__init__(
            f"the {what} at iteration {iteration}. Lower recipe.optimizer.lr, set recipe.clip_grad_norm, "
            "or run python -m cpanet.doctor if it happens from the start."
        )
        self.iteration = iteration


class Losses(NamedTuple):
    """One update's losses and the sum of its gradients, not yet fetched from the device."""

    main: Any
    auxiliary: Any  # or None
    total: Any
    gradients: Any


class Step(NamedTuple):
    """The record of one training step: losses as plain numbers, the rate it used, its wall time in seconds."""

    iteration: int
    main: float
    auxiliary: float | None
    total: float
    lr: float
    seconds: float


class EpisodeResult(NamedTuple):
    """One test episode and its pixel counts."""

    episode: Episode
    counts: Counts


class Evaluation(NamedTuple):
    """All test episodes of one evaluation and the scores over them."""

    results: list[EpisodeResult]
    scores: Scores


class Objective(NamedTuple):
    """Weight of the auxiliary loss, the recipe's loss, and the largest gradient norm (None: not clipped)."""

    k: float = 0.4
    loss: Loss = CROSS_ENTROPY
    clip_grad_norm: float | None = None


def train_step(model: Any, optimizer: Any, batch: Batch | FeatureBatch, objective: Objective) -> Losses:
    """One update."""
    features = jt.array(batch.query), jt.array(batch.support)
    if not isinstance(batch, FeatureBatch):
        features = model.episode_features(*features)
    masks = jt.array(batch.query_mask), jt.array(batch.support_mask)
    main, auxiliary = model.losses_of_features(*features, *masks, objective.k, objective.loss)
    total = main if auxiliary is None else main + objective.k * auxiliary
    # launched before the backward pass exists: what no gradient needs is then freed first, a tenth of the peak memory
    total.sync()
    optimizer.zero_grad()
    optimizer.backward(total)
    gradients = gradient_sum(optimizer)
    if objective.clip_grad_norm is not None:
        optimizer.clip_grad_norm(objective.clip_grad_norm)
    optimizer.step()
    return Losses(main, auxiliary, total, gradients)


def train_epoch(
    model: Any,
    optimizer: Any,
    batches: Iterable[Batch | FeatureBatch],
    objective: Objective,
    rate: Callable[[int], float],
    iteration: int,
    seed: int,
    average: WeightAverage | None = None,
    pause: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Train on ``batches``, yielding each step; ``iteration`` is the number of the first.

    Ends with the batches, or once ``pause()`` says so: then every step taken has been yielded, so that weights and
    records agree, and a second call goes on with the same iterator.

    A step's losses are fetched only after :func:`steps_ahead` more have been launched, so that the device does not wait for
    the host; the last ones are fetched at the end. Raises :class:`Diverged` for a loss or gradient that is not finite.
    """
    model.train()
    pending: list[tuple[int, Losses, float]] = []
    ahead = steps_ahead()
    batches = iter(batches)
    began = time.perf_counter()  # with one step under way, nothing else is its time
    while not pause() and (batch := next(batches, None)) is not None:
        lr = rate(iteration)
        set_learning_rate(optimizer, lr)
        model.dropout_source.reseed(seed, iteration)
        losses = train_step(model, optimizer, batch, objective)
        if average is not None:
            average.update()
        jt.sync_all()
        if len(pending) == ahead:
            began = yield from _fetch(pending, began)
            pending = []
        pending.append((iteration, losses, lr))
        iteration += 1
    yield from _fetch(pending, began)


def steps_ahead() -> int:
    """Steps that are launched before the losses of the first are looked at.

    A number that is fetched from a GPU waits for everything that has been launched there, also for later steps, and in the
    meantime nothing is launched: one wait for several steps. A CPU computes a step when it is launched.
    """
    return 8 if jt.flags.use_cuda else 1


def _fetch(pending: Sequence[tuple[int, Losses, float]], began: float) -> Generator[Step, None, float]:
    """The steps with their losses as numbers, each with the time that one of them took on average; returns their end."""
    values: list[Any] = [
        [None if loss is None else float(loss.item()) for loss in losses] for _, losses, _ in pending
    ]
    now = time.perf_counter()
    for (iteration, _, lr), (main, auxiliary, total, gradients) in zip(pending, values):
        if not math.isfinite(total):
            raise Diverged(f"loss is {total}", iteration)
        if not math.isfinite(gradients):
            raise Diverged("gradient is not finite", iteration)
        yield Step(iteration, main, auxiliary, total, lr, (now - began) / len(pending))
    return now


def evaluate(
    model: Any,
    dataset: DefectDataset,
    episodes: Sequence[Episode],
    features: ImageFeatures,
    batch_size: int,
    before_each: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Every episode once, ``batch_size`` of them at a time; the backbone's features come from ``features``.

    ``before_each`` is called before each batch; what it raises ends the evaluation.
    """
    results = [
        EpisodeResult(episode, episode_counts(difference, dataset.masks[episode.query]))
        for episode, difference in predict_episodes(model, episodes, features, batch_size, before_each)
    ]
    scores = summarise([r.counts for r in results], [r.episode.class_index for r in results])
    return Evaluation(results, scores)


def predict_episodes(
    model: Any,
    episodes: Sequence[Episode],
    features: ImageFeatures,
    batch_size: int,
    before_each: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Episode, np.ndarray]]:
    """Each episode with its logit difference (S, S) float32: foreground minus background, on the test canvas."""
    model.eval()
    size = (features.size, features.size)
    with jt.no_grad():
        for start in range(0, len(episodes), batch_size):
            before_each()
            chunk = episodes[start : start + batch_size]
            # the last batch is filled up, so that every batch has one shape and nothing is compiled twice
            padded = [*chunk, *[chunk[-1]] * (batch_size - len(chunk))] if start else chunk
            query, supports, masks = features.episodes(padded)
            _, prototype = model.encode_supports(supports, masks)
            logits = model.decode(query, prototype, size)
            difference = (logits[:, 1] - logits[:, 0]).numpy()
            yield from zip(chunk, difference)
