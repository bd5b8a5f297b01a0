"""Paired intervals of differences, and the noise that single runs carry.

All runs of a sweep meet the same test episodes, so that two rows are compared episode by episode and seed by seed:
what makes an episode easy or hard is the same on both sides and falls out of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from cpanet.report.collect import Episodes

RESAMPLES = 2000
LEVEL = 0.95


class Unpaired(ValueError):
    """Two rows that cannot be compared episode by episode; the message says why."""


class Interval(NamedTuple):
    """A difference and its interval, in fractions. ``seeds``: on how many it rests (0: different seeds on both sides)."""

    difference: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Differences(NamedTuple):
    """Of mIoU and FB-IoU, row minus reference; or the two scores themselves."""

    miou: Interval
    fb_iou: Interval


class Spread(NamedTuple):
    """Standard deviation over seeds and its degrees of freedom."""

    sd: float
    degrees: int


# A row's runs: seed → episodes; several such blocks (folds) are averaged.
Block = Mapping[int, Episodes]


def mean_iou(episodes: Episodes) -> float:
    """mIoU, a fraction: the mean over classes of summed intersection over summed union."""
    _, classes = _classes(episodes.keys)
    return float(_scores(episodes.counts[None], np.ones((1, len(episodes.keys))), classes)[0, 0, 0])


def compare(
    row: Sequence[Block],
    reference: Sequence[Block],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Differences:
    """Row minus reference, with 95 % intervals from a paired bootstrap.

    Each resample draws, within every class, as many episodes as there are, with replacement, the same ones on both
    sides; and seeds, the same ones on both sides where both have them. Of n seeds n − 1 are drawn, which makes the
    variance of their mean unbiased (Rao and Wu 1988). Few seeds tell little about their own spread, and nothing about
    its shape: the interval is the difference ± the resamples' standard deviation times Student's t with
    Satterthwaite's degrees of freedom. With one seed it is the percentiles of the resamples, and covers the choice of
    test episodes alone.

    ``row`` and ``reference`` hold a block a fold (one, as a rule); scores are averaged over blocks. Deterministic for
    a given ``seed``. Raises :class:`Unpaired` where the test episodes differ.
    """
    if len(row) != len(reference) or not row:
        raise Unpaired("not the same folds on both sides")
    common = _common_seeds(row, reference)
    pair = (common, common) if common else (_seeds(row), _seeds(reference))
    draws = _seed_draws(np.random.default_rng(seed), pair, resamples, bool(common))
    observed, total, episodes_only = np.zeros(2), np.zeros((resamples, 2)), np.zeros((resamples, 2))
    by_seed = [np.zeros((len(seeds), 2)) for seeds in pair]
    for number, (mine, theirs) in enumerate(zip(row, reference), 1):
        weights = _episode_draws(_same_episodes(mine, theirs).keys, resamples, (seed, number))
        for sign, side, block in ((1, 0, mine), (-1, 1, theirs)):
            scores = _all_scores(block, pair[side], weights) * sign / len(row)
            observed += scores[:, 0].mean(axis=0)
            total += _pick(scores[:, 1:], draws[side])
            episodes_only += scores[:, 1:].mean(axis=0)
            by_seed[side] += scores[:, 0]
    samples = [by_seed[0] + by_seed[1]] if common else by_seed
    of_seeds = np.zeros(2) + sum(
        np.var(s, axis=0, ddof=1) / len(s) if len(s) > 1 else np.zeros(2) for s in samples
    )
    degrees = sum(len(s) - 1 for s in samples)
    return Differences(
        *(
            _interval(
                observed[m], total[:, m], float(np.var(episodes_only[:, m])), of_seeds[m], degrees
            )._replace(seeds=len(common))
            for m in range(2)
        )
    )


def estimate(row: Sequence[Block], resamples: int = RESAMPLES, seed: int = 0) -> Differences:
    """The scores of ``row`` themselves (``difference``), with 95 % intervals: as :func:`compare`, against nothing.

    Over test episodes, and over seeds where there are several. Raises :class:`Unpaired` where the seeds met other episodes.
    """
    seeds = _seeds(row) if row else []
    if not seeds:
        raise Unpaired("no seed that finished on every fold")
    (chosen, _) = _seed_draws(np.random.default_rng(seed), (seeds, seeds), resamples, paired=True)
    observed, total, episodes_only = np.zeros(2), np.zeros((resamples, 2)), np.zeros((resamples, 2))
    by_seed = np.zeros((len(seeds), 2))
    for number, block in enumerate(row, 1):
        weights = _episode_draws(_same_episodes(block, block).keys, resamples, (seed, number))
        scores = _all_scores(block, seeds, weights) / len(row)
        observed += scores[:, 0].mean(axis=0)
        total += _pick(scores[:, 1:], chosen)
        episodes_only += scores[:, 1:].mean(axis=0)
        by_seed += scores[:, 0]
    of_seeds = np.var(by_seed, axis=0, ddof=1) / len(seeds) if len(seeds) > 1 else np.zeros(2)
    intervals = [
        _interval(observed[m], total[:, m], float(np.var(episodes_only[:, m])), of_seeds[m], len(seeds) - 1)
        for m in range(2)
    ]
    return Differences(
        *(i._replace(low=max(0.0, i.low), high=min(1.0, i.high), seeds=len(seeds)) for i in intervals)
    )


def spread_over_seeds(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pooled standard deviation within ``groups`` (each the scores of one function over seeds); None without any."""
    degrees = sum(len(group) - 1 for group in groups if len(group) > 1)
    if degrees == 0:
        return None
    squares = sum(float(np.sum((np.asarray(g) - np.mean(g)) ** 2)) for g in groups if len(g) > 1)
    return Spread(math.sqrt(squares / degrees), degrees)


# ---------------------------------------------------------------------- resampling


def _interval(
    observed: float, draws: np.ndarray, of_episodes: float, of_seeds: float, degrees: int
) -> Interval:
    """The interval that ``draws`` give; ``of_…``: the variances that episodes and seeds contribute."""
    if of_seeds == 0:
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(observed), float(low), float(high), 0)
    # Satterthwaite; the episodes' part is taken as known
    effective = degrees * ((of_seeds + of_episodes) / of_seeds) ** 2
    half = t_quantile(int(min(1000, effective))) * float(np.std(draws))
    low, high = max(-1.0, float(observed - half)), min(1.0, float(observed + half))  # no IoU differs by more
    return Interval(float(observed), low, high, 0)


@cache
def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t: with x = √ν·tan θ its density is cos^(ν−1) θ."""
    angle = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angle) ** (degrees - 1)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(math.sqrt(degrees) * np.tan(np.interp(LEVEL * total[-1], total, angle)))


def _seeds(blocks: Sequence[Block]) -> list[int]:
    return sorted(set.intersection(*(set(block) for block in blocks)))


def _common_seeds(row: Sequence[Block], reference: Sequence[Block]) -> list[int]:
    if not _seeds(row) or not _seeds(reference):
        raise Unpaired("no seed that finished on every fold")
    return sorted(set(_seeds(row)) & set(_seeds(reference)))


def _seed_draws(
    rng: np.random.Generator, pair: tuple[list[int], list[int]], resamples: int, paired: bool
) -> list[np.ndarray]:
    """For each side indices (resamples, n − 1) into its seeds."""

    def draw(n: int) -> np.ndarray:
        return rng.integers(n, size=(resamples, max(1, n - 1)))

    first = draw(len(pair[0]))
    return [first, first if paired else draw(len(pair[1]))]


def _pick(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """scores (S, resamples, 2), chosen (resamples, n) → mean over the chosen seeds (resamples, 2)."""
    return scores[chosen, np.arange(scores.shape[1])[:, None]].mean(axis=1)


def _same_episodes(mine: Block, theirs: Block) -> Episodes:
    """Any one of the evaluations, all of which must have met the same episodes."""
    evaluations = [*mine.values(), *theirs.values()]
    first = evaluations[0]
    if any(other.keys != first.keys for other in evaluations[1:]):
        raise Unpaired("other test episodes")
    return first


def _classes(keys: Sequence[tuple[str, str, str]]) -> tuple[list[str], np.ndarray]:
    """Class names, and the class index of every episode."""
    names = sorted({key[0] for key in keys})
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index[key[0]] for key in keys])


@lru_cache(maxsize=8)
def _episode_draws(keys: tuple, resamples: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each episode is drawn: (1 + resamples, E); the first row is every episode once.

    The rows of a table meet the same episodes, hence the cache; the result is shared: do not write to it.
    """
    rng = np.random.default_rng(seed)
    names, classes = _classes(keys)
    weights = np.ones((1 + resamples, len(classes)))
    for c in range(len(names)):
        members = np.flatnonzero(classes == c)
        even = np.full(len(members), 1 / len(members))
        weights[1:, members] = rng.multinomial(len(members), even, size=resamples)
    weights.flags.writeable = False
    return weights


def _all_scores(block: Block, seeds: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """(S, 1 + resamples, 2): mIoU and FB-IoU of every seed under every weighting."""
    _, classes = _classes(block[seeds[0]].keys)
    return _scores(np.stack([block[seed].counts for seed in seeds]), weights, classes)


def _scores(counts: np.ndarray, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """counts (S, E, 4), weights (W, E), classes (E,) → mIoU and FB-IoU (S, W, 2)."""
    by_class = np.stack(
        [weights[:, classes == c] @ counts[:, classes == c] for c in range(classes.max() + 1)]
    )  # (C, S, W, 4)
    miou = _ratio(by_class[..., 0], by_class[..., 1]).mean(axis=0)
    total = by_class.sum(axis=0)
    fb_iou = (_ratio(total[..., 0], total[..., 1]) + _ratio(total[..., 2], total[..., 3])) / 2
    return np.stack([miou, fb_iou], axis=-1)


def _ratio(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """0 where there is nothing at all, as in :mod:`cpanet.metrics`."""
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=float), where=union > 0)
