"""``task=predict``: a folder of pictures, one after the other, from the disk to the disk."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cpanet import runtime
from cpanet.config.schema import PredictConfig
from cpanet.data.check import MaskRule, binarise, printable
from cpanet.data.images import Refused, decode_grey, decode_image, read_header
from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.predict.outputs import Outputs
from cpanet.predict.queries import Query, find_queries, truth_of
from cpanet.predict.regions import find_regions, without_small
from cpanet.predict.segmenter import Segmenter
from cpanet.predict.supports import find_supports, read_supports
from cpanet.records import environment_facts, git_commit

console = Console(highlight=False, soft_wrap=True, markup=False)


@dataclass
class Tally:
    """What has been done so far."""

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


def run(config: PredictConfig, directory: Path, resume: bool = False) -> float:
    """Mark every picture of ``config.query`` into ``directory``; returns the IoU with the masks that lie beside them.

    Raises UserError where a support is not usable, or where not one of the pictures can be read.
    """
    started = time.perf_counter()
    supports = read_supports(config.support, config.data.mask_threshold)
    queries = find_queries(config.query)
    segmenter = segmenter_of(config)
    for note in [] if segmenter.description is None else segmenter.description.notes:
        console.print(f"note: {note}")
    device = runtime.prepare(config.device)
    segmenter.fit(supports.images, supports.masks)
    options = config.predict
    console.print(
        f"{len(supports.names)} supports, {len(queries)} pictures; {device.gpu or device.device}; seen at "
        f"{segmenter.size}×{segmenter.size} pixels, "
        + ("never cut up" if options.tiling is False else f"tiles of {segmenter.tile_} pixels for large ones")
    )
    category = options.category or supports.category or "defect"
    tally, status = Tally(), "interrupted"
    try:
        outputs = Outputs(directory, category, options.overlays, options.probabilities)
        with outputs, progress_bar(len(queries)) as say_done:
            for batch in read(queries, support_hashes(config.support), segmenter, outputs, tally):
                mark(batch, segmenter, outputs, tally, config)
                say_done(tally.predicted + tally.skipped)
        status = "completed" if tally.predicted else "failed"
    finally:
        result = summary(config, segmenter, tally, status, supports.names, time.perf_counter() - started)
        write_atomically(directory / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    if not tally.predicted:
        raise UserError(
            f"none of the {len(queries)} pictures can be used (skipped.csv): {tally.first_reason}."
        )
    say_end(tally, directory)
    return tally.iou


def segmenter_of(config: PredictConfig) -> Segmenter:
    """The segmenter that the configuration describes."""
    options = config.predict
    return Segmenter(
        None if config.method == "prototype" else config.checkpoint,
        threshold=options.threshold,
        tiling=options.tiling,
        tile=options.tile,
        overlap=options.overlap,
        image_size=config.data.image_size,
        batch_size=options.batch_size,
        device=config.device,
        backbone=config.backbone.name,
        weights=config.backbone.weights,
        seed=config.seed,
    )


def support_hashes(support: str | None) -> set[bytes]:
    """Of the supports' files: a picture that was learnt from is no test of what was learnt."""
    return {hashlib.sha256(file.image.read_bytes()).digest() for file in find_supports(support)[0]}


def read(
    queries: Iterable[Query], supports: set[bytes], segmenter: Segmenter, outputs: Outputs, tally: Tally
) -> Iterator[list[Picture]]:
    """Pictures as they can be marked together: as many as a batch holds, a large one alone. What cannot be read is noted."""
    batch: list[Picture] = []
    for query in queries:
        try:
            header = read_header(query.path)
            if len(segmenter.tiles_of(header.height, header.width)) > 1 and batch:
                yield batch
                batch = []
            content = query.path.read_bytes()
            image = decode_image(content)
        except (Refused, OSError) as error:
            reason = error.detail if isinstance(error, Refused) else f"cannot be read ({error.strerror})"
            outputs.skip(query, reason)
            tally.skipped += 1
            tally.first_reason = tally.first_reason or f"{printable(query.name)} {reason}"
            continue
        batch.append(Picture(query, image, hashlib.sha256(content).digest() in supports))
        if len(batch) == segmenter.batch_size or len(segmenter.tiles_of(*image.shape[:2])) > 1:
            yield batch
            batch = []
    if batch:
        yield batch


def mark(
    batch: list[Picture], segmenter: Segmenter, outputs: Outputs, tally: Tally, config: PredictConfig
) -> None:
    """Probability, mask, regions and, where the true mask is known, IoU of each picture of a batch; written."""
    for picture, probability in zip(batch, segmenter.predict_proba([p.image for p in batch])):
        mask = probability > config.predict.threshold
        regions = find_regions(mask, probability, config.predict.min_area)
        if config.predict.min_area > 1:
            mask = without_small(mask, regions)
        truth = (
            None if picture.is_support else read_truth(picture.query, mask.shape, config.data.mask_threshold)
        )
        iou = None
        if truth is not None:
            intersection, union = np.count_nonzero(mask & truth), np.count_nonzero(mask | truth)
            iou = intersection / union if union else 0.0
            tally.compared += 1
            tally.intersection += int(intersection)
            tally.union += int(union)
        outputs.add(picture.query, picture.image, probability, mask, regions, truth, iou, picture.is_support)
        tally.predicted += 1
        tally.marked += bool(regions)


def read_truth(query: Query, shape: tuple[int, ...], threshold: int | None) -> np.ndarray | None:
    """The true mask of a picture of a data set, bool (H, W); None where there is none that can be read."""
    path = truth_of(query)
    if path is None:
        return None
    try:
        mask, _ = binarise(decode_grey(path.read_bytes()), MaskRule(threshold, lenient=True))
    except (Refused, OSError):
        return None
    return mask == 1 if mask.shape == shape else None


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left; the function says how many pictures are done."""
    with Progress(
        TextColumn("pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=current_process().name != "MainProcess",
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def summary(
    config: PredictConfig,
    segmenter: Segmenter,
    tally: Tally,
    status: str,
    supports: list[str],
    seconds: float,
) -> dict[str, Any]:
    """What ``result.json`` holds."""
    description = segmenter.description
    return {
        "task": "predict",
        "status": status,
        "pictures": tally.predicted,
        "with_defect": tally.marked,
        "skipped": tally.skipped,
        "compared": tally.compared,
        "iou": None if math.isnan(tally.iou) else tally.iou,
        "supports": supports,
        "checkpoint": str(description.path) if description and description.path else None,
        "image_size": segmenter.size,
        "tile": segmenter.tile_,
        "config": config.model_dump(),
        "versions": environment_facts(),
        "git_commit": git_commit(),
        "wall_seconds": round(seconds, 3),
    }


def say_end(tally: Tally, directory: Path) -> None:
    """What came out, in a few lines."""
    console.print(f"{tally.predicted} pictures, {tally.marked} of them with a defect → {directory}")
    if tally.compared:
        console.print(f"IoU with the {tally.compared} masks that lie beside the pictures: {tally.iou:.4f}")
    if tally.skipped:
        console.print(
            f"{tally.skipped} pictures could not be used and were skipped (skipped.csv), the first: {tally.first_reason}"
        )
