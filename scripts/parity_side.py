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

from benchmarks.oracle import BEFORE_SOFTMAX, eval_fixture, train_fixture
from cpanet import runtime
from cpanet.errors import UserError
from scripts.stages import write_json

FIXTURES = {
    "vgg16bn_1shot": "vgg16_bn",
    "vgg16bn_5shot": "vgg16_bn",
    "resnet50deep_1shot": "resnet50_deep",
}
# biases before a softmax or a BatchNorm have gradient 0: what is stored there is rounding
NOISE = 1e-6


def _with_recipe(model: Any, weights: dict[str, np.ndarray]) -> Any:
    from cpanet.checkpoint import names
    from cpanet.checkpoint.weights import assign

    renamed = {names.from_released(name): tensor for name, tensor in weights.items()}
    assign(model, {name: tensor for name, tensor in renamed.items() if name is not None}, "the recipe")
    return model


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
    jt = runtime.jt
    model = _with_recipe(published_network(FIXTURES[fixture]), weights)
    model.eval()
    with jt.no_grad():
        logits = model(*(jt.array(a) for a in (inputs.query, inputs.support, inputs.support_label))).numpy()
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def trained() -> tuple[dict[str, float], dict[str, float]]:
    """Largest relative differences of a training step: losses and BatchNorm's statistics; norms of gradients, by name."""
    from cpanet.checkpoint import names
    from cpanet.models import Protocol, published_network

    jt = runtime.jt
    stored, inputs, weights = train_fixture()
    model = published_network("vgg16_bn", dropout=False, protocol=Protocol(aux_padding="background"))
    _with_recipe(model, weights)
    model.train()
    main, auxiliary = model.losses(
        jt.array(inputs.query),
        jt.array(inputs.query_label),
        jt.array(inputs.support),
        jt.array(inputs.support_label),
        stored["k"],
    )
    parameters = {n: p for n, p in model.named_parameters() if not p.is_stop_grad()}
    gradients = jt.grad(main + stored["k"] * auxiliary, list(parameters.values()))
    expected, floor = stored["grad_l2"], NOISE * max(stored["grad_l2"].values())
    norms = {names.to_released(n): float(np.linalg.norm(g.numpy())) for n, g in zip(parameters, gradients)}
    running = {f"REF.W.1.{n}": getattr(model.cpp.norm, n).numpy() for n in ("running_mean", "running_var")}
    off = {n: max(abs(norms[n] - e) - floor, 0.0) / max(e, floor) for n, e in expected.items()}
    distances = {
        "losses": max(
            abs(main.item() / stored["main_loss"] - 1), abs(auxiliary.item() / stored["aux_loss"] - 1)
        ),
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
        losses.append(
            [float("nan") if v is None else v.item() for v in (taken.main, taken.auxiliary, taken.total)]
        )
        if number == 0:
            found.update(_first_step(model, optimizer))
    return {"losses": np.array(losses), **found}


def _first_step(model: Any, optimizer: Any) -> dict[str, np.ndarray]:
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for parameter, gradient in zip(group["params"], group["grads"]):
            found[f"gradient/{names[id(parameter)]}"] = gradient.numpy()
            found[f"parameter/{names[id(parameter)]}"] = parameter.numpy()
    return found


def batches(settings: Any) -> Iterator[Any]:
    """Training batches as a run meets them: the same on every device."""
    from cpanet.data import EpisodeLoader
    from cpanet.data.memory import dataset_of

    loader = EpisodeLoader(
        dataset_of(settings.data, settings.shot),
        settings.fold,
        settings.shot,
        settings.seed,
        settings.train.batch_size,
        settings.data.image_size,
        workers=0,
        sampling=settings.recipe.sampling,
    )
    return (batch for epoch in count() for batch in loader.epoch(epoch))


def main(request_file: str, result_file: str) -> int:
    request = json.loads(Path(request_file).read_text())
    try:
        runtime.prepare(request["device"], precision="fp32")
        if request["job"] == "fixtures":
            write_json(Path(result_file), fixtures(request))
        else:
            arrays = steps(request)
            temporary = Path(result_file).with_suffix(".tmp.npz")
            np.savez(temporary, **arrays)
            temporary.replace(result_file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
