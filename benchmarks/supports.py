"""Choices that rest on the supports alone, judged on the other pictures of their class.

    python -m benchmarks.supports DATA threshold     IoU at the network's own 0.5, at the calibrated one, at others
    python -m benchmarks.supports DATA clean         false alarms and misses, with and without clean pictures
    python -m benchmarks.supports DATA agreement     what leaving a support out does, named as disagreeing or not

DATA is the folder of metal8, or a number: the embedded set's twelve kinds of defect, drawn anew with it as seed. Without
``--checkpoint RUN_DIR`` the method is ``prototype`` with ``--weights FILE``. Supports are drawn at random, ``--draws`` times
for each class and number of shots, the same ones for every method; every other picture of the class is a query. ``clean``
cuts each picture of metal8 in two along its longer side: a half without a marked pixel is clean, one with MOST pixels of
defect or more has a defect, others are left out; supports are halves of other pictures. Drawn steel is clean where nothing
is drawn into it. Of the clean pictures every other one is given as ``clean=``. ``agreement`` puts a picture of the next
class among the supports in every other draw.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.report import markdown
from cpanet import runtime
from cpanet.data import load_dataset, synthetic
from cpanet.predict.calibration import Calibration
from cpanet.predict.clean import image_score, limit_of
from cpanet.predict.segmenter import Segmenter
from cpanet.tasks.predict import disagreeing

MOST = 50  # pixels of defect, from which on a half is asked for
LEVELS = 65536  # of probability, among which the best threshold is looked for
FALSE_ALARMS = 0.05  # predict.false_alarms
PARTS = (0.5, 0.65, 0.8, 1.0)  # of the way from the mean on the supports' background to that on their defect

Classes = dict[str, list["Sample"]]


class Sample(NamedTuple):
    """A picture, uint8 (H, W) or (H, W, 3), and its mask, uint8 (H, W) {0, 1, 255}; ``source``: which picture it is of."""

    image: np.ndarray
    mask: np.ndarray
    source: int

    @property
    def marked(self) -> int:
        """Pixels of defect."""
        return int(np.count_nonzero(self.mask == 1))


# --- pictures ----------------------------------------------------------------------------------------------


def samples_of(data: str, pictures: int) -> Classes:
    """Of each class its first ``pictures``."""
    if data.isdigit():
        return {
            kind: [Sample(*synthetic.draw(kind, number, int(data)), number) for number in range(pictures)]
            for kind in synthetic.CLASSES
        }
    dataset = load_dataset("metal8", Path(data))
    return {
        name: [Sample(dataset.images[i], dataset.masks[i], i) for i in dataset.indices_of(number)[:pictures]]
        for number, name in enumerate(dataset.classes)
    }


@functools.cache
def clean_steel(seed: int, pictures: int) -> list[Sample]:
    """Drawn steel without a defect."""
    found = []
    for number in range(pictures):
        rng = np.random.default_rng([seed, len(synthetic.CLASSES), number])
        base = synthetic.steel(rng)
        picture = synthetic.photograph(rng, base, base)
        found.append(Sample(picture, np.zeros(picture.shape, np.uint8), -1 - number))
    return found


def halves(samples: Samples) -> list[Sample]:
    """Both halves of every picture along its longer side, those left out whose defect is a few pixels."""
    found = []
    for sample in samples:
        axis = int(sample.mask.shape[1] >= sample.mask.shape[0])
        middle = sample.mask.shape[axis] // 2
        for part in (slice(None, middle), slice(middle, None)):
            window = (slice(None),) * axis + (part,)
            half = Sample(sample.image[window], sample.mask[window], sample.source)
            if not 0 < half.marked < MOST:
                found.append(half)
    return found


# --- the network -------------------------------------------------------------------------------------------


class Remembered:
    """A frozen backbone that looks at every canvas once."""

    def __init__(self, features: Callable[[Any], Any]) -> None:
        self._features = features
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, batch: Any) -> Any:
        from cpanet.runtime import jt

        keys = [canvas.tobytes() for canvas in batch.numpy()]
        if any(key not in self._known for key in keys):
            self._known.update(zip(keys, self._features(batch).numpy()))
        return jt.array(np.stack([self._known[key] for key in keys]))

    def forget(self) -> None:
        """Another class comes."""
        self._known.clear()


def segmenter_of(options: argparse.Namespace) -> tuple[Segmenter, Remembered]:
    """The method that is asked for, its backbone remembered."""
    runtime.prepare("cpu")
    prototype = {"backbone": options.backbone, "weights": options.weights, "image_size": options.size}
    segmenter = Segmenter(options.checkpoint, **({} if options.checkpoint else prototype)).load()
    model = segmenter.network.model
    model.features = Remembered(model.features)
    return segmenter, model.features


def fit(segmenter: Segmenter, supports: Samples) -> Segmenter:
    return segmenter.fit([s.image for s in supports], [s.mask for s in supports])


def iou(masks: Sequence[np.ndarray], samples: Samples) -> float:
    """Summed intersection over summed union."""
    inter = sum(np.count_nonzero(m & (s.mask == 1)) for m, s in zip(masks, samples))
    union = sum(np.count_nonzero((m | (s.mask == 1)) & (s.mask != 255)) for m, s in zip(masks, samples))
    return inter / max(union, 1)


def best(maps: Sequence[np.ndarray], samples: Samples) -> tuple[float, float]:
    """The level of maps 0–1 above which they fit the masks best, and the IoU there."""
    defect, marked = np.zeros(LEVELS), np.zeros(LEVELS)
    for map_, sample in zip(maps, samples):
        level = np.minimum((map_ * LEVELS).astype(int), LEVELS - 1)
        defect += np.bincount(level[sample.mask == 1], minlength=LEVELS)
        marked += np.bincount(level[sample.mask != 255], minlength=LEVELS)
    hits, positive = (np.cumsum(n[::-1])[::-1] for n in (defect, marked))
    curve = hits / np.maximum(defect.sum() + positive - hits, 1)
    at = int(curve.argmax())
    return at / LEVELS, float(curve[at])


# --- the three questions -----------------------------------------------------------------------------------
#
# Each is asked of one class after the other, of its pictures and of another one's, and yields a row of numbers a draw. The
# table comes of the rows of all classes.

Samples = Sequence[Sample]
Rows = Iterator[dict[str, Any]]


def draws(samples: Samples, options: argparse.Namespace) -> Iterator[tuple[int, int, list[Sample], Samples]]:
    """Shots, number of the draw, supports, and the queries, which are no part of a support's picture."""
    for shots in options.shots:
        for draw in range(options.draws):
            chosen: dict[int, Sample] = {}
            for i in np.random.default_rng([shots, draw]).permutation(len(samples)):
                if samples[i].marked:
                    chosen.setdefault(samples[i].source, samples[i])
            supports = list(chosen.values())[:shots]
            sources = {support.source for support in supports}
            yield shots, draw, supports, [s for s in samples if s.source not in sources]


def threshold(samples: Samples, other: Samples, segmenter: Segmenter, options: argparse.Namespace) -> Rows:
    """IoU by the threshold."""
    for shots, _, supports, queries in draws(samples, options):
        by_others = best_by_others(segmenter, supports) if shots > 1 else None
        values = ious(fit(segmenter, supports), supports, queries, by_others)
        yield {"K": shots, **{str(column): value for column, value in enumerate(values)}}


def ious(segmenter: Segmenter, supports: Samples, queries: Samples, by_others: float | None) -> list[float]:
    """At the network's own 0.5, at the calibrated threshold, at PARTS of the way, at what would have been best on the
    supports, at ``by_others``, and at the best there is.
    """
    own_maps = segmenter.predict_proba([s.image for s in supports])
    on_supports, _ = best(own_maps, supports)
    maps = segmenter.predict_proba([q.image for q in queries])
    _, in_hindsight = best(maps, queries)
    found = segmenter.calibration_
    way = [found.background + part * (found.defect - found.background) for part in PARTS]
    own, *parts = found.probability(np.array([0.0, *way])) if found.is_found else [0.5] * (1 + len(PARTS))
    left_out = on_supports if by_others is None else float(found.probability(np.array(by_others)))
    cuts = [own, segmenter.threshold_, *parts, on_supports, left_out]
    values = [iou([m > cut for m in maps], queries) for cut in cuts]
    return [*values, max(in_hindsight, *values)]


def best_by_others(segmenter: Segmenter, supports: Samples) -> float:
    """The difference of logits that marks each support best by the prototype of the others."""
    differences = []
    for i, support in enumerate(supports):
        (map_,) = fit(segmenter, [*supports[:i], *supports[i + 1 :]]).predict_proba([support.image])
        odds = np.clip(map_.astype(np.float64), 1e-6, 1 - 1e-6)
        found = segmenter.calibration_ if segmenter.calibration_.is_found else Calibration()
        differences.append(found.offset + np.log(odds / (1 - odds)) / found.scale)
    low, high = min(d.min() for d in differences), max(d.max() for d in differences)
    level, _ = best([(d - low) / max(high - low, 1e-9) for d in differences], supports)
    return float(low + level * (high - low))


def threshold_rows(found: pd.DataFrame) -> list[list[Any]]:
    """Means over draws, and those over classes."""
    classes = found.groupby(["class", "K"], sort=False).mean()
    means = classes.groupby("K", sort=False).mean()
    means.index = pd.MultiIndex.from_product([["mean"], means.index])
    return [[*key, *(f"{v:.3f}" for v in row)] for key, row in pd.concat([classes, means]).iterrows()]


def clean(samples: Samples, other: Samples, segmenter: Segmenter, options: argparse.Namespace) -> Rows:
    """Answers on clean pictures and on pictures with a defect."""
    drawn = options.data.isdigit()
    all_ = [*samples, *clean_steel(int(options.data), options.pictures)] if drawn else halves(samples)
    for shots, _, supports, queries in draws(all_, options):
        yield {"K": shots, **dict(zip(COUNTS, counts(fit(segmenter, supports), queries)))}


# False alarms without and with clean pictures, of how many, misses without and with, of how many.
COUNTS = ("alarms", "fewer alarms", "clean", "missed", "more missed", "defect")


def counts(segmenter: Segmenter, queries: Samples) -> tuple[int, ...]:
    sound, defect = [q for q in queries if not q.marked], [q for q in queries if q.marked]
    given, asked = sound[::2], sound[1::2]
    if not given:  # every picture of the class has its defect in both halves
        return (0,) * len(COUNTS)
    scores = [image_score(p) for p in segmenter.predict_proba([g.image for g in given])]
    limit = limit_of(scores, FALSE_ALARMS).score
    missed = [len(defect) - n for n in answered(segmenter, defect, limit)]
    return (*answered(segmenter, asked, limit), len(asked), *missed, len(defect))


def answered(segmenter: Segmenter, samples: Samples, limit: float) -> tuple[int, int]:
    """How many are answered "defect" without and with clean pictures."""
    maps = segmenter.predict_proba([s.image for s in samples]) if samples else []
    marked = [bool((p > segmenter.threshold_).any()) for p in maps]
    return sum(marked), sum(m and image_score(p) > limit for m, p in zip(marked, maps))


def clean_rows(found: pd.DataFrame) -> list[list[Any]]:
    """Sums over draws, and over classes too."""
    sums = pd.concat([found, found.assign(**{"class": "all"})]).groupby(["class", "K"], sort=False).sum()
    rates = {**dict.fromkeys(COUNTS[:2], "clean"), **dict.fromkeys(COUNTS[3:5], "defect")}

    def cell(n: int, of: int) -> str:
        return f"{n} of {of} ({n / of:.0%})" if of else ""

    return [[*key, *(cell(row[n], row[of]) for n, of in rates.items())] for key, row in sums.iterrows()]


def agreement(samples: Samples, other: Samples, segmenter: Segmenter, options: argparse.Namespace) -> Rows:
    """How much the IoU of the queries changes when a support is left out, by whether it was named.

    In every other draw the last support is a picture of another class.
    """

    def quality(supports: Samples, queries: Samples) -> float:
        return iou(fit(segmenter, supports).predict([q.image for q in queries]), queries)

    for shots, draw, supports, queries in draws(samples, options):
        if shots == 1:
            continue
        wrong = draw % 2
        if wrong:
            supports[-1] = other[draw]
        whole = quality(supports, queries)
        named = disagreeing(segmenter.agreement())
        for i in range(shots):
            yield {
                "kind": "of the next class" if wrong and i == shots - 1 else "of the class",
                "named": "named" if i in named else "not named",
                "change": quality(supports[:i] + supports[i + 1 :], queries) - whole,
            }


def agreement_rows(found: pd.DataFrame) -> list[list[Any]]:
    return [
        [*key, len(change), f"{change.mean():+.3f}", f"{(change > 0).mean():.0%}"]
        for key, change in found.groupby(["kind", "named"])["change"]
    ]


OF_WAY = [f"{part:g} of the way" for part in PARTS]
BEST = ("best on the supports", "on each by the others", "best in hindsight")
FALSE = ("false alarms without `clean=`", "with", "defects missed without", "with")
QUESTIONS: dict[str, tuple[Any, Any, Sequence[str]]] = {
    "threshold": (threshold, threshold_rows, ("class", "K", "own 0.5", "auto", *OF_WAY, *BEST)),
    "clean": (clean, clean_rows, ("class", "K", *FALSE)),
    "agreement": (
        agreement,
        agreement_rows,
        ("support", "", "number", "IoU without it, mean change", "better without it"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("questions", nargs="+", choices=QUESTIONS, metavar="QUESTION")
    parser.add_argument("--checkpoint", metavar="RUN_DIR")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="auto", metavar="FILE")
    parser.add_argument("--size", type=int, default=200, help="pixels, of method=prototype (default: 200)")
    parser.add_argument("--classes", nargs="*", default=[], help="these alone (default: all)")
    parser.add_argument("--pictures", type=int, default=50, help="of a class, at most (default: 50)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--draws", type=int, default=6)
    options = parser.parse_args()
    segmenter, memory = segmenter_of(options)
    found: dict[str, list[dict[str, Any]]] = {question: [] for question in options.questions}
    classes = samples_of(options.data, options.pictures)
    for name, following in zip(classes, [*list(classes)[1:], next(iter(classes))]):
        if options.classes and name not in options.classes:
            continue
        memory.forget()
        for question, rows in found.items():
            asked = QUESTIONS[question][0](classes[name], classes[following], segmenter, options)
            rows += [{"class": name, **row} for row in asked]
        print(f"{name}: done", file=sys.stderr, flush=True)
    for question, rows in found.items():
        _, rows_of, headings = QUESTIONS[question]
        print(f"\n{markdown(headings, rows_of(pd.DataFrame(rows)) if rows else [])}", end="", flush=True)


if __name__ == "__main__":
    main()
