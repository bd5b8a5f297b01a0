"""This project's half of every measurement, on its real path. Imported in its own process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice, repeat
from typing import Any

import numpy as np

from benchmarks.oracle import recipe_state
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


def _model(workload: Workload, dropout: bool = True) -> Any:
    from cpanet.checkpoint import names, weights
    from cpanet.models import published_network

    model = published_network(workload.backbone, width=workload.width, dropout=dropout, seed=workload.seed)
    released = {
        names.to_released(name): list(value.shape) for name, value in weights.model_tensors(model).items()
    }
    state = {str(names.from_released(name)): value for name, value in recipe_state(released).items()}
    weights.assign(model, state, "the recipe")
    return model


def _variables(workload: Workload) -> dict[str, Any]:
    return {name: runtime.jt.array(array) for name, array in workload.inputs()._asdict().items()}


def outputs(workload: Workload, exact: bool = False) -> dict[str, np.ndarray]:
    """Logits in evaluation mode; losses and gradients in training mode without dropout; released names.

    At the workload's precision, always (``exact`` is the reference's).
    """
    from cpanet.checkpoint.names import to_released

    jt, model, batch = runtime.jt, _model(workload, dropout=False), _variables(workload)
    model.eval()
    logits = model(batch["query"], batch["support"], batch["support_label"])
    model.train()
    main, auxiliary = model.losses(
        batch["query"], batch["query_label"], batch["support"], batch["support_label"], workload.k
    )
    parameters = {n: p for n, p in model.named_parameters() if not p.is_stop_grad()}
    gradients = jt.grad(main + workload.k * auxiliary, list(parameters.values()))
    found = {"logits": logits, "main loss": main, "auxiliary loss": auxiliary}
    found.update({to_released(name): gradient for name, gradient in zip(parameters, gradients)})
    return {name: value.numpy() for name, value in found.items()}


def training(workload: Workload) -> Callable[[int], float]:
    """The project's own training loop, given the same batch for ever: see :func:`_training`."""
    inputs = workload.inputs()
    batch = Batch(inputs.query, inputs.query_label, inputs.support, inputs.support_label, ())
    return _training(workload, repeat(batch))


def loaded_training(workload: Workload, workers: int) -> Callable[[int], float]:
    """The same on augmented episodes of the embedded data set, prepared by ``workers`` processes."""
    dataset = load_dataset("embedded")
    loader = EpisodeLoader(
        dataset, 0, workload.shot, workload.seed, workload.batch, workload.size, workers=workers
    )
    return _training(workload, chain.from_iterable(loader.epoch(epoch) for epoch in count()))


def _training(workload: Workload, batches: Iterator[Batch]) -> Callable[[int], float]:
    """Takes that many steps of the project's own training loop; returns the last main loss, once the device is done."""
    from cpanet import engine
    from cpanet.recipe import SGD

    model = _model(workload)
    settings = SGD(lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4, head_lr_multiplier=10.0)
    optimizer = settings.build(model)

    def steps(number: int) -> float:
        taken = engine.train_epoch(
            model,
            optimizer,
            islice(batches, number),
            engine.Objective(k=workload.k),
            lambda iteration: LEARNING_RATE,
            iteration=0,
            seed=workload.seed,
        )
        return [step.main for step in taken][-1]

    return steps


def learning_losses(workload: Workload, steps: int, precision: str) -> list[float]:
    """Main losses of ``steps`` steps from an initialisation and at a rate that learn, on the embedded data set."""
    from cpanet import engine
    from cpanet.models import published_network
    from cpanet.recipe import AdamW

    runtime.prepare(device=workload.device, precision=precision)
    model = published_network(
        workload.backbone, width=workload.width, dropout=False, seed=workload.seed, head_init="kaiming_normal"
    )
    settings = AdamW(lr=1e-3, weight_decay=1e-4)
    with EpisodeLoader(
        load_dataset("embedded"), 0, workload.shot, workload.seed, workload.batch, workload.size
    ) as loader:
        batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
        taken = engine.train_epoch(
            model,
            settings.build(model),
            islice(batches, steps),
            engine.Objective(k=workload.k, clip_grad_norm=1.0),
            lambda iteration: settings.lr,
            iteration=0,
            seed=workload.seed,
        )
        return [step.main for step in taken]


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
