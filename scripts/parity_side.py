"""One device's half of the comparison, in a process of its own: ``python -m scripts.parity_side REQUEST RESULT``.

REQUEST is a JSON file {job, device, …}. ``fixtures`` writes as JSON how far the device is from the released code's outputs;
``steps`` writes as ``.npz`` the losses of several training steps, and the first one's gradients and parameters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import write_json
from benchmarks.oracle import BEFORE_SOFTMAX, FIXTURES, eval_fixture, train_fixture
from benchmarks.side_project import logits, training_step, with_weights
from cpanet import runtime
from cpanet.errors import UserError
from cpanet.files import replacing

# biases before a softmax or a BatchNorm have gradient 0: what is stored there is rounding
NOISE = 1e-6


def fixtures(request: dict[str, Any]) -> dict[str, Any]:
    """Distances from the released code: logits over the largest, everything else relative."""
    found = {name: evaluated(name) for name in request["fixtures"]}
    training, gradients = trained()
    soft = {name: gradients.pop(name) for name in BEFORE_SOFTMAX}
    training["gradient_norms"] = max(gradients.values())
    return {"logits": found, "training": training, "before_softmax": soft, "gradient_norms": gradients}


def evaluated(fixture: str) -> float:
    """Largest difference of the logits of an evaluation, over the largest logit."""
    from cpanet.models import published_network

    expected, inputs, weights = eval_fixture(fixture)
    found = logits(with_weights(published_network(FIXTURES[fixture]), weights), inputs)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def trained() -> tuple[dict[str, float], dict[str, float]]:
    """Largest relative differences of a training step: losses and BatchNorm's statistics; norms of gradients, by name."""
    from cpanet.models import Protocol, published_network

    stored, inputs, weights = train_fixture()
    model = published_network("vgg16_bn", dropout=False, protocol=Protocol(aux_padding="background"))
    main, auxiliary, gradients = training_step(with_weights(model, weights), inputs, stored["k"])
    expected, floor = stored["grad_l2"], NOISE * max(stored["grad_l2"].values())
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in gradients.items()}
    running = {f"REF.W.1.{n}": getattr(model.cpp.norm, n).numpy() for n in ("running_mean", "running_var")}
    off = {n: max(abs(norms[n] - e) - floor, 0.0) / max(e, floor) for n, e in expected.items()}
    distances = {
        "losses": max(abs(main / stored["main_loss"] - 1), abs(auxiliary / stored["aux_loss"] - 1)),
        "statistics": max(_away(value, stored["cpp_bn_running"][name]) for name, value in running.items()),
    }
    return distances, off


def _away(value: np.ndarray, expected: Any) -> float:
    return float(np.linalg.norm(value - np.array(expected)) / np.linalg.norm(expected))


# ------------------------------------------------------------------------------------------------ training


def steps(request: dict[str, Any]) -> dict[str, np.ndarray]:
    """``losses`` (N, 3): main, auxiliary, total; ``gradient/…`` and ``parameter/…`` of the first step, by name."""
    from benchmarks.configured import composed
    from cpanet import engine
    from cpanet.components import build_model, build_training
    from cpanet.recipe import set_learning_rate

    settings = composed(request["overrides"])
    model, _ = build_model(settings)
    optimizer, _ = build_training(settings, model)
    objective = engine.Objective(settings.loss.k, settings.recipe.loss, settings.recipe.clip_grad_norm)
    model.train()
    found: dict[str, np.ndarray] = {}
    losses = []
    for number, batch in enumerate(islice(batches(settings), request["steps"])):
        set_learning_rate(optimizer, settings.recipe.optimizer.lr)
        model.dropout_source.reseed(settings.seed, number)
        taken = engine.train_step(model, optimizer, batch, objective)
        parts = (taken.main, taken.auxiliary, taken.total)
        losses.append([float("nan") if part is None else part.item() for part in parts])
        if number == 0:
            found.update(_first_step(model, optimizer))
    return {"losses": np.array(losses), **found}


def _first_step(model: Any, optimizer: Any) -> dict[str, np.ndarray]:
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for parameter, gradient in zip(group["params"], group["grads"]):
            name = names[id(parameter)]
            found.update({f"gradient/{name}": gradient.numpy(), f"parameter/{name}": parameter.numpy()})
    return found


def batches(settings: Any) -> Iterator[Any]:
    """Training batches as a run meets them: the same on every device."""
    from cpanet.data import EpisodeLoader
    from cpanet.data.memory import dataset_of

    dataset = dataset_of(settings.data, settings.shot)
    sizes = (settings.shot, settings.seed, settings.train.batch_size, settings.data.image_size)
    loader = EpisodeLoader(dataset, settings.fold, *sizes, workers=0, sampling=settings.recipe.sampling)
    return (batch for epoch in count() for batch in loader.epoch(epoch))


def main(request_file: str, result_file: str) -> int:
    request = json.loads(Path(request_file).read_text())
    try:
        runtime.prepare(request["device"], precision="fp32")
        if request["job"] == "fixtures":
            write_json(Path(result_file), fixtures(request))
        else:
            with replacing(Path(result_file)) as temporary, temporary.open("wb") as file:
                np.savez(file, **steps(request))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
