"""``task=export``: the two graphs of a checkpoint, compared with Jittor where onnxruntime is installed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cpanet
from cpanet import options, runtime
from cpanet.checkpoint.description import Description, describe
from cpanet.config.schema import ExportConfig
from cpanet.console import log
from cpanet.data.transforms import normalise
from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.records.result_file import write_result
from cpanet.records.run_directory import git_commit
from cpanet.tasks.input_checks import check_checkpoint

ENCODER, SEGMENTER = "support_encoder.onnx", "query_segmenter.onnx"
TOLERANCE = 1e-3  # of the largest logit, but at least of 1
NOT_INSTALLED = "task=export needs onnx, which is not installed. Run: pip install '.[export]'"


class Deviation(NamedTuple):
    """Largest differences between onnxruntime and Jittor at one size."""

    size: int
    logits: float
    largest_logit: float
    probability: float


def preflight(config: ExportConfig) -> None:
    """Raises UserError where no trained network is given."""
    check_checkpoint(config)
    if config.method == "prototype":
        raise UserError("task=export writes trained networks: give checkpoint=RUN_DIR of one.")


def run(config: ExportConfig, directory: Path, resume: bool = False) -> float:
    """Write both graphs into ``directory``; raises UserError where onnx is missing, and where the graphs deviate."""
    started = time.perf_counter()
    if importlib.util.find_spec("onnx") is None:
        raise UserError(NOT_INSTALLED)
    runtime.prepare(config.device, config.log.verbose, precision=config.precision)
    assert config.checkpoint is not None
    description = describe(config.checkpoint)
    for note in description.notes:
        log(f"note: {note}")
    size = config.data.image_size
    write_graphs(description, size, config.export.dynamic, directory)
    for name in (ENCODER, SEGMENTER):
        log(f"{directory / name}: {(directory / name).stat().st_size / 2**20:.1f} MiB")
    deviations = []
    if config.export.check and importlib.util.find_spec("onnxruntime") is not None:
        sizes = [size, size + 32] if config.export.dynamic else [size]
        deviations = [deviation(directory, description, s) for s in sizes]
        for found in deviations:
            log(
                f"at {found.size}×{found.size} pixels onnxruntime and Jittor differ by {found.logits:.1e} in a logit "
                f"(the largest is {found.largest_logit:.3g}), by {found.probability:.1e} in a probability"
            )
    worst = max((d.logits / max(1.0, d.largest_logit) for d in deviations), default=0.0)
    result = {
        "task": "export",
        "status": "completed" if worst <= TOLERANCE else "failed",
        "files": [ENCODER, SEGMENTER],
        "dynamic": config.export.dynamic,
        "image_size": size,
        "deviations": [d._asdict() for d in deviations],
        "checkpoint": str(description.path),
        "config": config.model_dump(),
        "versions": runtime.versions(),
        "git_commit": git_commit(),
        "wall_seconds": round(time.perf_counter() - started, 3),
    }
    write_result(directory, result)
    if worst > TOLERANCE:
        raise UserError(
            f"onnxruntime and Jittor differ by {worst:.1e} of the largest logit, more than {TOLERANCE:g}: do not use these "
            "files. python -m cpanet.doctor checks this machine's Jittor."
        )
    return float("nan")


def write_graphs(description: Description, size: int, dynamic: bool, directory: Path) -> None:
    """``support_encoder.onnx`` and ``query_segmenter.onnx``."""
    from cpanet.checkpoint.weights import network_tensors
    from cpanet.export import network

    assert description.path is not None
    tensors = network_tensors(description.path, inference=True)
    config = description.config
    _check_parts(config, network.PARTS)
    metadata = {
        "image_size": str(size),
        "dynamic": str(dynamic).lower(),
        "backbone": str(config["backbone"]["name"]),
        "ablation": str(config["ablation"].get("name", "")),
        "input": "RGB 0-255, longer side scaled to image_size, sides down to multiples of 8, top left on black",
        "masks": "1 defect, 0 background, 255 padding or ignored",
        "cpanet": cpanet.__version__,
    }
    scale = float(description.summed_shots or 1)
    kind = network.Kind(
        config.get("recipe", {}).get("features", "plain"),
        config.get("protocol", {}).get("support_mask", "point"),
        config.get("recipe", {}).get("prior"),
    )
    fixed = None if dynamic else size
    models = {
        ENCODER: network.support_encoder(tensors, fixed, kind, scale, metadata),
        SEGMENTER: network.query_segmenter(tensors, fixed, kind, metadata),
    }
    for name, model in models.items():
        write_atomically(directory / name, model.SerializeToString())


def _check_parts(config: dict[str, Any], known: Sequence[str]) -> None:
    """Raises UserError for a part that has no form in ONNX here."""
    named = options.current(config)
    parts = (named["backbone"], named["ablation"]["prototype"], named["ablation"]["decoder"])
    for target in (part["_target_"] for part in parts):
        if target not in known:
            raise UserError(
                f"task=export writes the published parts, and {target} is none. Use task=predict."
            )


def deviation(directory: Path, description: Description, size: int, shots: int = 2) -> Deviation:
    """Both graphs on random pictures of ``size``, against Jittor."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (shots + 1, size, size, 3), dtype=np.uint8)
    masks = (rng.random((shots, size, size)) < 0.3).astype(np.float32)
    masks[:, : size // 4] = 1
    logits, probability = run_onnx(directory, pictures[:shots], masks, pictures[shots:])
    expected = _run_jittor(description, pictures, masks, size)
    chance = 1 / (1 + np.exp(-(expected[:, 1] - expected[:, 0]).astype(np.float64)))
    return Deviation(
        size,
        float(np.abs(logits - expected).max()),
        float(np.abs(expected).max()),
        float(np.abs(probability - chance).max()),
    )


def run_onnx(
    directory: Path, supports: np.ndarray, masks: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 2, S, S) and probability (N, S, S) of RGB pictures (·, S, S, 3) by the exported graphs."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    encoder, segmenter = (
        onnxruntime.InferenceSession(str(directory / name), providers=providers)
        for name in (ENCODER, SEGMENTER)
    )

    def channels_first(pictures: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)

    (prototype,) = encoder.run(None, {"images": channels_first(supports), "masks": masks})
    logits, probability = segmenter.run(None, {"images": channels_first(queries), "prototype": prototype})
    return logits, probability


def _run_jittor(description: Description, pictures: np.ndarray, masks: np.ndarray, size: int) -> Any:
    """Logits of the last picture, the others being its supports."""
    from cpanet.checkpoint.restore import restore
    from cpanet.predict.network import Network
    from cpanet.runtime import jt

    network = Network(restore(description), size, len(pictures), description.summed_shots)
    features = network.features(map(normalise, pictures))
    prototype = network.encode(features[:-1], list(masks))
    with jt.no_grad():
        return network.model.decode(jt.array(features[-1:]), jt.array(prototype), (size, size)).numpy()
