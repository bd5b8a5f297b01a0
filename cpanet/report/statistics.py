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

RESAMPLES = 2000
LEVEL = 0.95


class Episodes(NamedTuple):
    """Test episodes of one evaluation, sorted by key: ``keys[i]`` (class, query, supports), counts int64 (E, 4)."""

    keys: tuple[tuple[str, str, str], ...]
    counts: np.ndarray


# A row's runs: seed → episodes; several such blocks (folds) are averaged.
Block = Mapping[int, Episodes]


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


class _Side(NamedTuple):
    """One side of a comparison: its sign, a block a fold, the seeds that count, and the draws of them."""

    sign: int
    blocks: Sequence[Block]
    seeds: list[int]
    draws: np.ndarray  # indices (resamples, n − 1) into the seeds


def mean_iou(episodes: Episodes) -> float:
    """mIoU, a fraction: the mean over classes of summed intersection over summed union."""
    once = np.ones((1, len(episodes.keys)))
    return float(_scores(episodes.counts[None], once, _classes(episodes.keys))[0, 0, 0])


def compare(
    row: Sequence[Block], reference: Sequence[Block], resamples: int = RESAMPLES, seed: int = 0
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
    rng = np.random.default_rng(seed)
    mine, theirs = _seeds(row), _seeds(reference)
    common = sorted(set(mine) & set(theirs))
    drawn = [common] if common else [mine, theirs]
    draws = [_seed_draws(rng, len(seeds), resamples) for seeds in drawn]
    sides = [_Side(1, row, drawn[0], draws[0]), _Side(-1, reference, drawn[-1], draws[-1])]
    return _resampled(sides, len(common), seed)


def estimate(row: Sequence[Block]) -> Differences:
    """The scores of ``row`` themselves (``difference``), with 95 % intervals: as :func:`compare`, against nothing.

    Over test episodes, and over seeds where there are several. Raises :class:`Unpaired` where the seeds met other episodes.
    """
    seeds = _seeds(row)
    draws = _seed_draws(np.random.default_rng(0), len(seeds), RESAMPLES)
    return _resampled([_Side(1, row, seeds, draws)], len(seeds), 0)


def spread_over_seeds(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Pooled standard deviation within ``groups`` (each the scores of one function over seeds), degrees of freedom.

    None where no group has two.
    """
    degrees = sum(len(group) - 1 for group in groups if group)
    squares = sum(float(np.sum((np.asarray(g) - np.mean(g)) ** 2)) for g in groups if len(g) > 1)
    return (math.sqrt(squares / degrees), degrees) if degrees else None


@cache
def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t: with x = √ν·tan θ its density is cos^(ν−1) θ."""
    angle = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angle) ** (degrees - 1)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(math.sqrt(degrees) * np.tan(np.interp(LEVEL * total[-1], total, angle)))


# ---------------------------------------------------------------------- resampling


def _resampled(sides: Sequence[_Side], paired: int, seed: int) -> Differences:
    """Intervals of mIoU and FB-IoU of the signed sum of ``sides``; ``paired`` seeds are one sample of all sides each."""
    resamples = len(sides[0].draws)
    observed, total, episodes_only = np.zeros(2), np.zeros((resamples, 2)), np.zeros((resamples, 2))
    by_seed = [np.zeros((len(side.seeds), 2)) for side in sides]
    for number, blocks in enumerate(zip(*(side.blocks for side in sides)), 1):
        keys = _same_episodes(blocks)
        weights = _episode_draws(keys, resamples, (seed, number))
        for side, block, of_seed in zip(sides, blocks, by_seed):
            # (S, 1 + resamples, 2): mIoU and FB-IoU of every seed under every weighting
            scores = _scores(np.stack([block[seed].counts for seed in side.seeds]), weights, _classes(keys))
            scores = scores * side.sign / len(side.blocks)
            observed += scores[:, 0].mean(axis=0)
            # (S, resamples, 2) → the mean over the drawn seeds, (resamples, 2)
            total += scores[:, 1:][side.draws, np.arange(resamples)[:, None]].mean(axis=1)
            episodes_only += scores[:, 1:].mean(axis=0)
            of_seed += scores[:, 0]
    samples = [np.sum(by_seed, axis=0)] if paired else by_seed
    of_seeds = sum((np.var(s, axis=0, ddof=1) / len(s) for s in samples if len(s) > 1), np.zeros(2))
    degrees = sum(len(s) - 1 for s in samples)
    lowest = -1.0 if len(sides) > 1 else 0.0  # no IoU differs by more than 1
    found = []
    for m in range(2):
        low, high = _interval(
            observed[m], total[:, m], float(np.var(episodes_only[:, m])), of_seeds[m], degrees
        )
        found.append(Interval(float(observed[m]), max(lowest, low), min(1.0, high), paired))
    return Differences(*found)


def _interval(
    observed: float, draws: np.ndarray, of_episodes: float, of_seeds: float, degrees: int
) -> tuple[float, float]:
    """The interval that ``draws`` give; ``of_…``: the variances that episodes and seeds contribute."""
    if of_seeds == 0:
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)
    # Satterthwaite; the episodes' part is taken as known
    effective = degrees * ((of_seeds + of_episodes) / of_seeds) ** 2
    half = t_quantile(int(min(1000, effective))) * float(np.std(draws))
    return float(observed - half), float(observed + half)


def _seeds(blocks: Sequence[Block]) -> list[int]:
    found = sorted(set.intersection(*(set(block) for block in blocks))) if blocks else []
    if not found:
        raise Unpaired("no seed that finished on every fold")
    return found


def _seed_draws(rng: np.random.Generator, seeds: int, resamples: int) -> np.ndarray:
    return rng.integers(seeds, size=(resamples, max(1, seeds - 1)))


def _same_episodes(blocks: Sequence[Block]) -> tuple[tuple[str, str, str], ...]:
    """The keys of the episodes, which must be the same in all evaluations."""
    first, *others = [episodes.keys for block in blocks for episodes in block.values()]
    if any(keys != first for keys in others):
        raise Unpaired("other test episodes")
    return first


def _classes(keys: Sequence[tuple[str, str, str]]) -> np.ndarray:
    """The class of every episode, as an index."""
    return np.unique([key[0] for key in keys], return_inverse=True)[1]


@lru_cache(maxsize=8)
def _episode_draws(keys: tuple, resamples: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each episode is drawn: (1 + resamples, E); the first row is every episode once.

    The rows of a table meet the same episodes, hence the cache; the result is shared: do not write to it.
    """
    rng = np.random.default_rng(seed)
    classes = _classes(keys)
    weights = np.ones((1 + resamples, len(classes)))
    for c in range(classes.max() + 1):
        members = np.flatnonzero(classes == c)
        even = np.full(len(members), 1 / len(members))
        weights[1:, members] = rng.multinomial(len(members), even, size=resamples)
    weights.flags.writeable = False
    return weights


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
