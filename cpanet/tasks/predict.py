"""``task=predict``: a folder of pictures, one after the other, from the disk to the disk."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cpanet import metrics, runtime
from cpanet.config.schema import PredictConfig
from cpanet.console import console, log
from cpanet.data.check import MaskRule, binarise, meanings_of, printable
from cpanet.data.images import Refused, ValueRange, decode_image, decode_mask, read_header
from cpanet.data_section import DataSection
from cpanet.errors import UserError
from cpanet.predict.clean import Limit, image_score, limit_of
from cpanet.predict.outputs import Outputs, remove_outputs
from cpanet.predict.queries import Query, find_queries, truth_of
from cpanet.predict.regions import find_regions, without_small
from cpanet.predict.segmenter import Segmenter
from cpanet.predict.supports import Supports, find_supports, read_supports
from cpanet.records.result_file import DamagedResult, read_result, write_result
from cpanet.records.run_directory import git_commit
from cpanet.tasks.input_checks import check_checkpoint, segmenter_of

DISAGREES = 0.25  # of the other supports' IoU, below which a support is named
UNSEEN = 0.05  # IoU of every support by the others, below which they say nothing about each other
LOG_EVERY = 30.0  # seconds, where there is no terminal to draw a bar on


@dataclass
class Tally:
    """Counts of the pictures done so far."""

    predicted: int = 0
    skipped: int = 0
    marked: int = 0  # pictures with at least one region
    compared: int = 0  # pictures whose true mask is known
    intersection: int = 0
    union: int = 0
    first_reason: str = ""

    @property
    def iou(self) -> float:
        """Summed intersection over summed union of the pictures with a known mask; not-a-number without any."""
        return self.intersection / self.union if self.union else math.nan


class Picture(NamedTuple):
    """A query that has been read."""

    query: Query
    image: np.ndarray
    is_support: bool


class Fitted(NamedTuple):
    """The state before the first query: the network, its supports, and the choices made on them."""

    segmenter: Segmenter
    supports: Supports
    agreement: list[float]  # IoU of each support by the others
    limit: Limit | None  # of a picture's score, where clean pictures were given
    warning: str | None  # where the checkpoint's run ended below the training-free baseline

    @property
    def doubtful(self) -> list[str]:
        """Supports that the others do not explain."""
        return [self.supports.names[i] for i in disagreeing(self.agreement)]


def disagreeing(ious: Sequence[float]) -> list[int]:
    """Of each support's IoU by the others, those below DISAGREES of the median of the rest."""
    rest = (np.median([*ious[:i], *ious[i + 1 :]]) if len(ious) > 1 else 0.0 for i in range(len(ious)))
    return [i for i, median in enumerate(rest) if ious[i] < DISAGREES * median]


def preflight(config: PredictConfig) -> None:
    """Raises UserError for a checkpoint, supports, queries or clean pictures that are not given or not there."""
    check_checkpoint(config)
    find_supports(config.support)
    find_queries(config.query)
    if config.clean is not None:
        find_queries(config.clean, "clean")


def run(config: PredictConfig, directory: Path, resume: bool = False) -> float:
    """Mark every picture of ``config.query`` into ``directory``; returns the IoU with the masks that lie beside them.

    Raises UserError where a support is not usable, or where not one of the pictures can be read.
    """
    started = time.perf_counter()
    device = runtime.prepare(config.device, config.log.verbose, precision=config.precision)
    remove_outputs(directory)
    supports = read_supports(config.support, config.data.mask_threshold, config.data.mask_values)
    queries = find_queries(config.query)
    options = config.predict
    settings = options.model_dump(include={"threshold", "tiling", "tile", "overlap", "batch_size"})
    segmenter = segmenter_of(config, **settings)
    description = segmenter.description
    for note in [] if description is None else description.notes:
        log(f"note: {note}")
    warning = None if description is None else below_baseline(description.path)
    if warning is not None:
        warn(f"{warning}.")
    segmenter.fit(supports.images, supports.masks)
    for number in segmenter.lost():
        warn(
            f"{supports.names[number]} has no defect pixel left at {segmenter.size} pixels; it shows nothing"
        )
    log(
        f"{len(supports.names)} supports, {len(queries)} pictures; {device.gpu or device.device}; seen at "
        f"{segmenter.size}×{segmenter.size} pixels, "
        + ("never cut up" if options.tiling is False else f"tiles of {segmenter.tile_} pixels for large ones")
    )
    log(threshold_sentence(segmenter))
    limit = limit_on_clean(config, segmenter, supports)
    fitted = Fitted(segmenter, supports, segmenter.agreement(), limit, warning)
    log_agreement(fitted)
    category = options.category or supports.category or "defect"
    tally, status = Tally(), "interrupted"
    try:
        outputs = Outputs(directory, category, options.overlays, options.probabilities)
        with outputs, progress(len(queries), "pictures") as report_done:
            hashes = support_hashes(config.support)
            for batch in read(queries, hashes, segmenter, outputs.skip, tally, supports.value_range):
                mark(batch, fitted, outputs, tally, config)
                report_done(tally.predicted + tally.skipped)
        status = "completed" if tally.predicted else "failed"
    finally:
        result = summary(config, fitted, tally, status, time.perf_counter() - started)
        write_result(directory, result)
    if not tally.predicted:
        raise UserError(
            f"none of the {len(queries)} pictures can be used (skipped.csv): {tally.first_reason}."
        )
    log_end(tally, directory)
    return tally.iou


def warn(text: str) -> None:
    log(f"warning: {text}", "bold yellow")


def below_baseline(checkpoint: Path | None) -> str | None:
    """A sentence where the run that a checkpoint belongs to ended below the training-free baseline; None elsewhere.

    The record is ``result.json`` of the run, two folders above the checkpoint's file.
    """
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return None
    try:
        record = read_result(checkpoint.parent.parent) or {}
        scores = record.get("last" if checkpoint.stem == "last" else "best") or {}
        score, baseline = scores.get("miou"), (record.get("floor") or {}).get("miou")
        stage = record.get("config", {}).get("baseline", {}).get("stage", "f3")
    except (DamagedResult, AttributeError):
        return None
    if score is None or baseline is None or score >= baseline:
        return None
    instead = "method=prototype" + ("" if stage == "f3" else f" baseline.stage={stage}")
    return (
        f"this checkpoint's record ends below the training-free baseline (mIoU {score:.4f} against {baseline:.4f}): "
        f"{instead} in place of checkpoint=… may mark better"
    )


def threshold_sentence(segmenter: Segmenter) -> str:
    """Which threshold is used, and where it comes from."""
    if segmenter.threshold != "auto":
        return f"threshold: probability {segmenter.threshold_:g}, as given"
    found = segmenter.calibration_
    if not found.is_found:
        return (
            "threshold: probability 0.5 as the network gives it, for it cannot tell the supports' own defect from their "
            "background: expect little"
        )
    return (
        f"threshold: calibrated on the supports, probability 0.5 is a logit difference of {found.offset:.3g}, between "
        f"{found.background:.3g} on their background and {found.defect:.3g} on their defect; predict.threshold=0.5 takes "
        "the network's own, 0"
    )


def log_agreement(fitted: Fitted) -> None:
    """How well each support is marked from the others, and which of them stand apart."""
    if not fitted.agreement:
        return
    listed = ", ".join(f"{n} {iou:.3f}" for n, iou in zip(fitted.supports.names, fitted.agreement))
    log(f"IoU of each support, marked from the others: {listed}")
    if max(fitted.agreement) < UNSEEN:
        warn(
            "no support can be marked from the others: their defects look different here, or too small. Expect little."
        )
    for name in fitted.doubtful:
        warn(
            f"{name} disagrees with the other supports, which do not mark its defect. "
            "Look at its mask, and whether it is the same kind of defect."
        )


def limit_on_clean(config: PredictConfig, segmenter: Segmenter, supports: Supports) -> Limit | None:
    """The limit of a picture's score from the pictures of ``clean``; None where none were given.

    Raises UserError where not one of them can be read.
    """
    if config.clean is None:
        return None
    queries, scores, tally = find_queries(config.clean, "clean"), [], Tally()

    def skip(query: Query, reason: str) -> None:
        warn(f"clean picture {printable(query.name)} {reason}: left out")

    with progress(len(queries), "clean pictures") as report_done:
        for batch in read(queries, set(), segmenter, skip, tally, supports.value_range):
            scores += [image_score(p) for p in segmenter.predict_proba([p.image for p in batch])]
            report_done(len(scores) + tally.skipped)
    if not scores:
        raise UserError(
            f"clean={printable(config.clean)}: none of the {len(queries)} pictures can be used: {tally.first_reason}."
        )
    limit = limit_of(scores, config.predict.false_alarms)
    log(limit.sentence())
    if limit.expected > config.predict.false_alarms:
        wanted = math.ceil(1 / config.predict.false_alarms) - 1
        log(
            f"note: predict.false_alarms={config.predict.false_alarms:g} needs {wanted} clean pictures or more"
        )
    return limit


def support_hashes(support: str | None) -> set[bytes]:
    """Of the supports' files: a picture that was learnt from is no test of what was learnt."""
    return {hashlib.sha256(file.image.read_bytes()).digest() for file in find_supports(support)[0]}


def read(
    queries: Iterable[Query],
    supports: set[bytes],
    segmenter: Segmenter,
    skip: Callable[[Query, str], None],
    tally: Tally,
    value_range: ValueRange = None,
) -> Iterator[list[Picture]]:
    """Pictures as they can be marked together: as many as a batch holds, a large one alone. What cannot be read is noted."""
    batch: list[Picture] = []
    for query in queries:
        try:
            header = read_header(query.path)
            is_large = len(segmenter.tiles_of(header.height, header.width)) > 1
            if is_large and batch:
                yield batch
                batch = []
            content = query.path.read_bytes()
            image = decode_image(content, value_range)
        except (Refused, OSError) as error:
            reason = error.detail if isinstance(error, Refused) else f"cannot be read ({error.strerror})"
            skip(query, reason)
            tally.skipped += 1
            tally.first_reason = tally.first_reason or f"{printable(query.name)} {reason}"
            continue
        batch.append(Picture(query, image, hashlib.sha256(content).digest() in supports))
        if is_large or len(batch) == segmenter.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def mark(batch: list[Picture], fitted: Fitted, outputs: Outputs, tally: Tally, config: PredictConfig) -> None:
    """Probability, score, mask, regions and, where the true mask is known, IoU of each picture of a batch; written."""
    segmenter = fitted.segmenter
    for picture, probability in zip(batch, segmenter.predict_proba([p.image for p in batch])):
        score = image_score(probability)
        mask = probability > segmenter.threshold_
        if fitted.limit is not None and score <= fitted.limit.score:
            mask = np.zeros_like(mask)
        regions = find_regions(mask, probability, config.predict.min_area)
        if config.predict.min_area > 1:
            mask = without_small(mask, regions)
        truth = None if picture.is_support else read_truth(picture.query, mask.shape, config.data)
        iou = None
        if truth is not None:
            counts = metrics.count(mask, truth)
            iou = counts.iou_fg
            tally.compared += 1
            tally.intersection += counts.inter_fg
            tally.union += counts.union_fg
        shown = None if truth is None else truth == 1
        outputs.add(*picture, probability, mask, regions, shown, iou, score)
        tally.predicted += 1
        tally.marked += bool(regions)


def read_truth(query: Query, shape: tuple[int, ...], data: DataSection) -> np.ndarray | None:
    """The true mask of a picture of a data set, uint8 (H, W) {0, 1, 255 = ignored}; None where none can be read."""
    path = truth_of(query)
    if path is None:
        return None
    try:
        rule = MaskRule(data.mask_threshold, lenient=True, values=meanings_of(data.mask_values))
        mask, _ = binarise(decode_mask(path.read_bytes()), rule)
    except (Refused, OSError):
        return None
    return mask if mask.shape == shape else None


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, without a terminal a line now and then; the function says how many pictures are done."""
    if not console.is_terminal:
        yield lines(total, what)
    else:
        with Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=done)


def lines(total: int, what: str, clock: Callable[[], float] = time.monotonic) -> Callable[[int], None]:
    """Progress as lines, every LOG_EVERY seconds at most; ``clock`` gives seconds."""
    began = logged = clock()

    def report(done: int) -> None:
        nonlocal logged
        now = clock()
        if now - logged >= LOG_EVERY and 0 < done < total:
            logged = now
            left = (now - began) * (total - done) / done
            duration = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
            log(f"{done} of {total} {what}, about {duration} left")

    return report


def summary(
    config: PredictConfig, fitted: Fitted, tally: Tally, status: str, seconds: float
) -> dict[str, Any]:
    """The content of ``result.json``."""
    segmenter, limit = fitted.segmenter, fitted.limit
    description, found = segmenter.description, segmenter.calibration_
    return {
        "task": "predict",
        "status": status,
        "pictures": tally.predicted,
        "with_defect": tally.marked,
        "skipped": tally.skipped,
        "compared": tally.compared,
        "iou": None if math.isnan(tally.iou) else tally.iou,
        "supports": fitted.supports.names,
        "support_iou_by_others": fitted.agreement or None,
        "supports_that_disagree": fitted.doubtful,
        "threshold": {
            "probability": segmenter.threshold_,
            "how": threshold_sentence(segmenter),
            "calibration": found._asdict() if found.is_found else None,
        },
        "no_defect": None if limit is None else {**limit._asdict(), "how": limit.sentence()},
        "checkpoint": str(description.path) if description and description.path else None,
        "below_baseline": fitted.warning,
        "image_size": segmenter.size,
        "tile": segmenter.tile_,
        "config": config.model_dump(),
        "versions": runtime.versions(),
        "git_commit": git_commit(),
        "wall_seconds": round(seconds, 3),
    }


def log_end(tally: Tally, directory: Path) -> None:
    """Log the results in a few lines."""
    log(f"{tally.predicted} pictures, {tally.marked} of them with a defect → {directory}")
    if tally.compared:
        log(f"IoU with the {tally.compared} masks that lie beside the pictures: {tally.iou:.4f}")
    if tally.skipped:
        log(
            f"{tally.skipped} pictures could not be used and were skipped (skipped.csv), the first: {tally.first_reason}"
        )
