"""The graph that CUDA would run, on the CPU: Jittor's own operators in the place of the kernels of ``cpanet.ops``."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet import engine
from cpanet.models import published_network
from cpanet.runtime import jt, prepare
from tests import test_fixtures, test_models
from tests.as_on_cuda import without_kernels

pytestmark = pytest.mark.slow  # whole networks of Jittor's own operators
prepare("cpu")
SEEDS = 10


def losses_and_gradients(model, seed: int) -> tuple[list[float], list[np.ndarray]]:
    """One training step's, with dropout; the same channels are dropped for the same ``seed``."""
    model.train()
    model.dropout_source.reseed(0, seed)
    trained = [p for p in model.parameters() if not p.is_stop_grad()]
    query, label, support, masks = test_models.batch((40, 32), 2, 2, seed)
    main, auxiliary = model.losses(query, label, support, masks, 0.4)
    gradients = jt.grad(main + 0.4 * auxiliary, trained)
    return [main.item(), auxiliary.item()], [g.numpy() for g in gradients]


def test_same_losses_and_gradients_as_with_kernels(monkeypatch):
    model = test_models.lively(published_network("vgg16_bn", width=32, head_init="kaiming_normal"))
    errors = []
    # agreement on one of several inputs: see tests/test_models.py on zeros that round to either side
    for seed in range(SEEDS):
        losses, gradients = losses_and_gradients(model, seed)
        with monkeypatch.context() as patched:
            without_kernels(patched)
            others, other_gradients = losses_and_gradients(model, seed)
        assert others == pytest.approx(losses, rel=1e-5)
        scale = max(np.abs(g).max() for g in gradients)
        errors.append(
            max(
                min(test_models.relative_error(g, e), 10 * np.abs(g - e).max() / scale)
                for g, e in zip(other_gradients, gradients)
            )
        )
        if errors[-1] < 1e-4:
            break
    assert min(errors) < 1e-4
    assert max(errors) < 2e-2


def operators_of(run) -> set[str]:
    """Keys of all that Jittor executes in ``run()``."""
    with jt.profile_scope() as report:
        run()
    return {str(row[0]) for row in report[1:]}


def test_a_training_step_needs_no_library_but_cudnn_and_cublas(monkeypatch):
    """What CUB has (arguments of maxima, sorting, cumulative sums, places) Jittor takes through host memory without it;
    random numbers are drawn on the host, so that every device draws the same."""
    without_kernels(monkeypatch)
    made: list = []
    found = operators_of(lambda: (made.append(published_network("vgg16_bn", width=16)), jt.sync_all()))
    (model,) = made
    model.train()
    groups = model.parameter_groups(0.01)
    optimizer = jt.nn.SGD(groups, 0.01, momentum=0.9, weight_decay=1e-4)
    query, label, support, masks = test_models.batch((32, 32), 2)
    features = (v.numpy() for v in model.episode_features(query, support))
    arrays = (next(features), label.numpy(), next(features), masks.numpy())
    batch = engine.FeatureBatch(*arrays)
    jt.sync_all()

    def step():
        engine.train_step(model, optimizer, batch, engine.Objective())
        jt.sync_all()

    found |= operators_of(step)
    assert any("conv" in key for key in found)
    for library in ("arg_reduce", "argsort", "cumsum", "where", "random", "code", "fetch"):
        assert not [key for key in found if library in key], library


@pytest.mark.parametrize("fixture", ["vgg16bn_1shot", "vgg16bn_5shot", "resnet50deep_1shot"])
def test_logits_of_the_released_code(monkeypatch, fixture):
    without_kernels(monkeypatch)
    backbone = "vgg16_bn" if fixture.startswith("vgg") else "resnet50_deep"
    test_fixtures.test_logits_of_the_released_code(fixture, backbone)


def test_losses_gradients_and_statistics_of_a_released_training_step(monkeypatch):
    without_kernels(monkeypatch)
    test_fixtures.test_losses_gradients_and_statistics_of_a_released_training_step()
