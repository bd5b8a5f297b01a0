"""The oracle: outputs of the released code, on weights and inputs from a recipe."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.oracle import eval_fixture, gradient_limit, train_fixture
from cpanet.checkpoint import names
from cpanet.checkpoint.weights import assign
from cpanet.models import Protocol, published_network
from cpanet.runtime import jt


def with_recipe(model, weights):
    renamed = {names.from_released(name): tensor for name, tensor in weights.items()}
    assign(model, {name: tensor for name, tensor in renamed.items() if name is not None}, "recipe")
    return model


@pytest.mark.parametrize(
    ("fixture", "backbone"),
    [("vgg16bn_1shot", "vgg16_bn"), ("vgg16bn_5shot", "vgg16_bn"), ("resnet50deep_1shot", "resnet50_deep")],
)
def test_logits_of_the_released_code(fixture, backbone):
    expected, inputs, weights = eval_fixture(fixture)
    model = with_recipe(published_network(backbone), weights)
    model.eval()
    with jt.no_grad():
        logits = model(
            jt.array(inputs.query), jt.array(inputs.support), jt.array(inputs.support_label)
        ).numpy()
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_losses_gradients_and_statistics_of_a_released_training_step():
    stored, inputs, weights = train_fixture()
    model = published_network("vgg16_bn", dropout=False, protocol=Protocol(aux_padding="background"))
    with_recipe(model, weights)
    model.train()
    main, auxiliary = model.losses(
        jt.array(inputs.query),
        jt.array(inputs.query_label),
        jt.array(inputs.support),
        jt.array(inputs.support_label),
        stored["k"],
    )
    total = main + stored["k"] * auxiliary
    assert main.item() == pytest.approx(stored["main_loss"], rel=1e-3)
    assert auxiliary.item() == pytest.approx(stored["aux_loss"], rel=1e-3)
    assert total.item() == pytest.approx(stored["total_loss"], rel=1e-3)

    trained = {n: p for n, p in model.named_parameters() if not p.is_stop_grad()}
    norms = {
        names.to_released(name): float(np.linalg.norm(gradient.numpy().astype(np.float64)))
        for name, gradient in zip(trained, jt.grad(total, list(trained.values())))
    }
    assert norms.keys() == stored["grad_l2"].keys()
    largest = max(stored["grad_l2"].values())
    for name, expected in stored["grad_l2"].items():
        # biases before a softmax or a BatchNorm have gradient 0; what is stored there is rounding
        assert norms[name] == pytest.approx(expected, rel=gradient_limit(name), abs=1e-6 * largest), name

    for name, statistic in (
        ("running_mean", model.cpp.norm.running_mean),
        ("running_var", model.cpp.norm.running_var),
    ):
        expected = np.array(stored["cpp_bn_running"][f"REF.W.1.{name}"])
        np.testing.assert_allclose(statistic.numpy(), expected, rtol=1e-3, atol=1e-4)
