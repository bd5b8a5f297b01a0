"""This project's half of every measurement, on its real path. Imported in its own process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, repeat
from typing import Any

import numpy as np

from benchmarks.oracle import Inputs, recipe_state
from benchmarks.workload import LEARNING_RATE, Workload
from cpanet import runtime
from cpanet.data import Batch, DefectDataset, Episode, EpisodeLoader, load_dataset
from cpanet.metrics import Counts


def start(workload: Workload) -> None:
    """Jittor on the workload's device, precision and threads."""
    runtime.prepare(device=workload.device, threads=workload.threads, precision=workload.precision)


def without_kernels() -> None:
    """From here on as on CUDA: no kernels of ``cpanet.ops``. Convolutions name a library's operators on both devices."""
    from cpanet.ops import kernels

    kernels.usable = lambda: False


def with_weights(model: Any, released: dict[str, np.ndarray]) -> Any:
    """``model`` with weights of the released names."""
    from cpanet.checkpoint import names, weights

    weights.assign(model, {str(names.from_released(n)): v for n, v in released.items()}, "the recipe")
    return model


def logits(model: Any, inputs: Inputs) -> np.ndarray:
    """Logits (B, 2, S, S) in evaluation mode."""
    model.eval()
    with runtime.jt.no_grad():
        arrays = (inputs.query, inputs.support, inputs.support_label)
        found: np.ndarray = model(*map(runtime.jt.array, arrays)).numpy()
    return found


def training_step(model: Any, inputs: Inputs, k: float) -> tuple[float, float, dict[str, np.ndarray]]:
    """Main and auxiliary loss in training mode, and the gradient of every parameter, by released names."""
    from cpanet.checkpoint.names import to_released

    model.train()
    query, support, support_label, query_label = map(runtime.jt.array, inputs)
    main, auxiliary = model.losses(query, query_label, support, support_label, k)
    parameters = {n: p for n, p in model.named_parameters() if not p.is_stop_grad()}
    gradients = runtime.jt.grad(main + k * auxiliary, list(parameters.values()))
    named = {to_released(name): gradient.numpy() for name, gradient in zip(parameters, gradients)}
    return main.item(), auxiliary.item(), named


def _model(workload: Workload, dropout: bool = True) -> Any:
    from cpanet.checkpoint import names, weights
    from cpanet.models import published_network

    model = published_network(workload.backbone, width=workload.width, dropout=dropout, seed=workload.seed)
    shapes = {
        names.to_released(name): list(value.shape) for name, value in weights.model_tensors(model).items()
    }
    return with_weights(model, recipe_state(shapes))


def outputs(workload: Workload, exact: bool = False) -> dict[str, np.ndarray]:
    """Logits in evaluation mode; losses and gradients in training mode without dropout; released names.

    At the workload's precision, always (``exact`` is the reference's).
    """
    model, inputs = _model(workload, dropout=False), workload.inputs()
    found = {"logits": logits(model, inputs)}
    main, auxiliary, gradients = training_step(model, inputs, workload.k)
    return {**found, "main loss": np.array(main), "auxiliary loss": np.array(auxiliary), **gradients}


def training(workload: Workload) -> Callable[[int], float]:
    """Takes that many steps on the same batch for ever; returns the last main loss, once the device is done."""
    query, support, support_label, query_label = workload.inputs()
    return _training(workload, repeat(Batch(query, query_label, support, support_label, ())))


def loaded_training(workload: Workload, workers: int) -> Callable[[int], float]:
    """The same on augmented episodes of the embedded data set, prepared by ``workers`` processes."""
    return _training(workload, _episodes(workload, workers))


def _training(workload: Workload, batches: Iterator[Batch]) -> Callable[[int], float]:
    from cpanet.recipe import SGD

    settings = SGD(lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4, head_lr_multiplier=10.0)
    steps = _loop(workload, _model(workload), settings, batches)
    return lambda number: steps(number)[-1]


def learning_losses(workload: Workload, steps: int, precision: str) -> list[float]:
    """Main losses of ``steps`` steps from an initialisation and at a rate that learn, on the embedded data set."""
    from cpanet.models import published_network
    from cpanet.recipe import AdamW

    runtime.prepare(device=workload.device, precision=precision)
    model = published_network(
        workload.backbone, width=workload.width, dropout=False, seed=workload.seed, head_init="kaiming_normal"
    )
    settings = AdamW(lr=1e-3, weight_decay=1e-4)
    return _loop(workload, model, settings, _episodes(workload), clip_grad_norm=1.0)(steps)


def _episodes(workload: Workload, workers: int = 0) -> Iterator[Batch]:
    sizes = (workload.shot, workload.seed, workload.batch, workload.size)
    with EpisodeLoader(load_dataset("embedded"), 0, *sizes, workers=workers) as loader:
        for epoch in count():
            yield from loader.epoch(epoch)


def _loop(
    workload: Workload, model: Any, settings: Any, batches: Iterator[Batch], **objective: Any
) -> Callable[[int], list[float]]:
    """The main losses of that many steps of the project's own training loop."""
    from cpanet import engine

    optimizer, what = settings.build(model), engine.Objective(k=workload.k, **objective)

    def steps(number: int) -> list[float]:
        chosen = islice(batches, number)
        taken = engine.train_epoch(
            model, optimizer, chosen, what, lambda iteration: settings.lr, iteration=0, seed=workload.seed
        )
        return [step.main for step in taken]

    return steps


def evaluation(
    workload: Workload, dataset: DefectDataset, episodes: Sequence[Episode]
) -> Callable[[], list[Counts]]:
    """A pass over ``episodes``, ``workload.batch`` at a time; the first also computes the images' features."""
    from cpanet import engine
    from cpanet.feature_cache import SharedFeatures

    model, cache = _model(workload), SharedFeatures()
    indices = sorted({i for episode in episodes for i in (episode.query, *episode.supports)})

    def one_pass() -> list[Counts]:
        features = cache.images((), model, dataset, indices, workload.size)
        evaluated = engine.evaluate(model, dataset, episodes, features, workload.batch)
        return [result.counts for result in evaluated.results]

    return one_pass


def versions() -> dict[str, Any]:
    return dict(runtime.versions())
