"""The oracle: outputs of the released code, on weights and inputs from a recipe."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.oracle import FIXTURES, eval_fixture, gradient_limit, train_fixture
from benchmarks.side_project import logits, training_step, with_weights
from cpanet.models import Protocol, published_network


@pytest.mark.parametrize("fixture", FIXTURES)
def test_logits_of_the_released_code(fixture):
    expected, inputs, weights = eval_fixture(fixture)
    found = logits(with_weights(published_network(FIXTURES[fixture]), weights), inputs)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_losses_gradients_and_statistics_of_a_released_training_step():
    stored, inputs, weights = train_fixture()
    model = published_network("vgg16_bn", dropout=False, protocol=Protocol(aux_padding="background"))
    main, auxiliary, gradients = training_step(with_weights(model, weights), inputs, stored["k"])
    assert main == pytest.approx(stored["main_loss"], rel=1e-3)
    assert auxiliary == pytest.approx(stored["aux_loss"], rel=1e-3)
    assert main + stored["k"] * auxiliary == pytest.approx(stored["total_loss"], rel=1e-3)

    assert gradients.keys() == stored["grad_l2"].keys()
    largest = max(stored["grad_l2"].values())
    for name, expected in stored["grad_l2"].items():
        # biases before a softmax or a BatchNorm have gradient 0; what is stored there is rounding
        limits = {"rel": gradient_limit(name), "abs": 1e-6 * largest}
        assert np.linalg.norm(gradients[name].astype(np.float64)) == pytest.approx(expected, **limits), name

    for name in ("running_mean", "running_var"):
        expected = np.array(stored["cpp_bn_running"][f"REF.W.1.{name}"])
        np.testing.assert_allclose(getattr(model.cpp.norm, name).numpy(), expected, rtol=1e-3, atol=1e-4)
