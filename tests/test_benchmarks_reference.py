"""The PyTorch reference is the released network: it reproduces the released code's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import oracle
from cpanet import options

torch = pytest.importorskip("torch", reason="the benchmark extra is not installed")

from benchmarks.reference import ReferenceCPANet, without_dropout  # noqa: E402


def load(backbone: str, state: dict[str, np.ndarray], **options: str) -> ReferenceCPANet:
    model = ReferenceCPANet(backbone, **options)
    model.load_arrays(state)
    return model


def tensors(*arrays: np.ndarray) -> list:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("fixture", oracle.FIXTURES)
def test_logits_are_the_released_ones(fixture: str) -> None:
    expected, inputs, state = oracle.eval_fixture(fixture)
    model = load(oracle.FIXTURES[fixture], state).eval()
    with torch.no_grad():
        logits = model(*tensors(inputs.query, inputs.support, inputs.support_label)).numpy()
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_training_step_is_the_released_one() -> None:
    fixture, inputs, state = oracle.train_fixture()
    model = without_dropout(load("vgg16_bn", state, aux_padding="background"))
    main, auxiliary = model.losses(
        *tensors(inputs.query, inputs.query_label, inputs.support, inputs.support_label)
    )
    (main + fixture["k"] * auxiliary).backward()
    assert main.item() == pytest.approx(fixture["main_loss"], rel=1e-3)
    assert auxiliary.item() == pytest.approx(fixture["aux_loss"], rel=1e-3)
    norms = {key: model.get_parameter(key).grad.norm().item() for key in fixture["grad_l2"]}
    # Three biases before a BatchNorm or a softmax have no gradient but rounding, hence the absolute part.
    assert norms == pytest.approx(fixture["grad_l2"], rel=1e-3, abs=1e-3)
    for name, running in fixture["cpp_bn_running"].items():
        assert model.get_buffer(name).numpy() == pytest.approx(np.array(running), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("backbone", options.names("backbone"))
def test_every_backbone_has_the_shape_it_should(backbone: str) -> None:
    with torch.device("meta"):
        model = ReferenceCPANet(backbone)
        features = model.features(torch.empty(1, 3, 200, 200))
    assert features.shape == ((1, 768, 13, 13) if backbone.startswith("vgg") else (1, 1536, 25, 25))


@pytest.mark.parametrize("backbone", ["vgg16_bn", "resnet50_deep"])
def test_parameter_names_are_the_released_ones(backbone: str) -> None:
    with torch.device("meta"):
        shapes = ReferenceCPANet(backbone).shapes()
    released = oracle.fixture_keys(backbone)
    assert shapes == {name: shape for name, shape in released.items() if not name.startswith("layer4.")}
