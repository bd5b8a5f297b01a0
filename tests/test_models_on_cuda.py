"""The graph that CUDA would run, on the CPU: Jittor's own operators in the place of the kernels of ``cpanet.ops``."""

from __future__ import annotations

import pytest

from cpanet import engine
from cpanet.models import published_network
from cpanet.runtime import jt, prepare
from tests import test_fixtures, test_models
from tests.as_on_cuda import without_kernels

pytestmark = pytest.mark.slow  # whole networks of Jittor's own operators
prepare("cpu")


def test_same_losses_and_gradients_as_with_kernels(monkeypatch):
    model = test_models.lively(published_network("vgg16_bn", width=32, head_init="kaiming_normal"))
    model.train()

    def with_kernels(arrays):
        model.dropout_source.reseed(0, 5)  # the same channels are dropped
        return test_models.losses_and_gradients(model, arrays)

    def as_on_cuda(arrays):
        with monkeypatch.context() as patched:
            without_kernels(patched)
            return with_kernels(arrays)

    test_models.assert_same_step(
        with_kernels, as_on_cuda, lambda seed: test_models.batch((40, 32), 2, 2, seed)
    )


def operators_of(run) -> set[str]:
    """Keys of all that Jittor executes in ``run()``."""
    with jt.profile_scope() as report:
        run()
    return {str(row[0]) for row in report[1:]}


def test_a_training_step_needs_no_library_but_cudnn_and_cublas(monkeypatch):
    """Without CUB, Jittor takes arguments of maxima, sorting, cumulative sums and places through host memory;
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


@pytest.mark.parametrize("fixture", test_fixtures.FIXTURES)
def test_logits_of_the_released_code(monkeypatch, fixture):
    without_kernels(monkeypatch)
    test_fixtures.test_logits_of_the_released_code(fixture)


def test_losses_gradients_and_statistics_of_a_released_training_step(monkeypatch):
    without_kernels(monkeypatch)
    test_fixtures.test_losses_gradients_and_statistics_of_a_released_training_step()
