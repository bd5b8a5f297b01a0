"""The network fused and as the textbook has it, and the behaviours that the paper and the protocol promise."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

from cpanet.models import (
    CPANet,
    MaskedAverage,
    Protocol,
    SpaceSqueezeAttention,
    published_backbone,
    published_network,
)
from cpanet.models.dropout import DropoutSource
from cpanet.models.init import initialise
from cpanet.models.layers import BatchNorm, first_maximum, max_pool_2x2
from cpanet.models.upsample import conv_of_upsampled, upsample
from cpanet.runtime import jt

Arrays = tuple[Any, Any, Any, Any]  # pictures and labels of queries, pictures and masks of supports


def batch(size=(32, 32), episodes=1, shot=1, seed=0):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((episodes, 3, *size)).astype(np.float32)
    support = rng.standard_normal((episodes, shot, 3, *size)).astype(np.float32)
    masks = (rng.random((episodes, shot, *size)) > 0.6).astype(np.uint8)
    label = (rng.random((episodes, *size)) > 0.6).astype(np.uint8)
    label[:, :3] = masks[:, :, :3] = 255
    return tuple(jt.array(a) for a in (query, label, support, masks))


def lively(model, seed=1):
    """Give CPP's BatchNorm a weight, so that the non-local block is not switched off by its initialisation."""
    if hasattr(model, "cpp"):
        rng = np.random.default_rng(seed)
        model.cpp.norm.weight.assign(jt.array(rng.standard_normal(model.width).astype(np.float32)))
    return model


def relative_error(found, expected):
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)


@pytest.mark.parametrize(
    ("backbone", "size", "episodes", "shot"),
    [
        ("vgg16", (32, 32), 2, 1),
        ("vgg16_bn", (40, 56), 1, 5),
        ("resnet50", (32, 40), 3, 1),
        ("resnet50_deep", (40, 32), 1, 2),
    ],
)
def test_fused_and_textbook_have_the_same_losses_and_gradients(backbone, size, episodes, shot):
    model = lively(published_network(backbone, width=32, dropout=shot > 1, head_init="kaiming_normal"))
    model.train()

    def step(fused):
        def run(arrays):
            model.fused = True  # of the same features: a test of its own compares the backbone's
            features = model.episode_features(arrays[0], arrays[2])
            model.fused = fused
            model.dropout_source.reseed(2, 5)  # the same channels are dropped
            return losses_and_gradients(model, arrays, features)

        return run

    assert_same_step(step(True), step(False), lambda seed: batch(size, episodes, shot, seed))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_a_backbone_is_the_same_layer_by_layer_and_fused(name, training):
    rng = np.random.default_rng(3)
    backbone = published_backbone(name)
    initialise(backbone, 0)
    for parameter_name, parameter in backbone.named_parameters():
        if parameter_name.endswith("running_mean"):
            parameter.assign(jt.array(0.1 * rng.standard_normal(parameter.shape).astype(np.float32)))
        elif parameter_name.endswith("running_var"):
            parameter.assign(jt.array((0.5 + rng.random(parameter.shape)).astype(np.float32)))
    backbone.train() if training else backbone.eval()
    images = jt.array(rng.standard_normal((2, 3, 40, 56)).astype(np.float32))
    for plain, fused in ((backbone, backbone.fused), (backbone.unpooled, backbone.unpooled_fused)):
        expected = plain(images).numpy()
        assert expected.any()
        assert relative_error(fused(images).numpy(), expected) < 1e-5


Step = tuple[list[float], list[np.ndarray]]


def losses_and_gradients(model, arrays: Arrays, features: tuple | None = None) -> Step:
    """Main and auxiliary loss of a training step, and the gradients of what is trained."""
    trained = [p for p in model.parameters() if not p.is_stop_grad()]
    query, label, support, masks = arrays
    found = model.episode_features(query, support) if features is None else features
    main, auxiliary = model.losses_of_features(*found, label, masks, 0.4)
    gradients = jt.grad(main + 0.4 * auxiliary, trained)
    return [main.item(), auxiliary.item()], [g.numpy() for g in gradients]


def assert_same_step(
    first: Callable[[Arrays], Step], second: Callable[[Arrays], Step], inputs: Callable[[int], Arrays]
) -> None:
    """Two formulations of a training step have the same losses and the same gradients.

    Where one of a million ReLU inputs is zero but for rounding, the two may take different sides, and on maps this
    small a single pixel is more than 1e-4 of a gradient. A mistake would show with any input, so that agreement of the
    gradients on one of several is enough; on all others the difference has to stay a pixel's. Inputs whose
    losses a rounding of the pictures alone moves by a tenth of what is allowed tell nothing and are passed over.
    """
    errors = []
    for seed in range(40):
        arrays = inputs(seed)
        losses, gradients = first(arrays)
        rounded = [first(nudged(arrays, other))[0] for other in (0, 1)]
        if any(losses != pytest.approx(found, rel=1e-6) for found in rounded):
            continue
        others, other_gradients = second(arrays)
        assert others == pytest.approx(losses, rel=1e-5)
        scale = max(np.abs(g).max() for g in other_gradients)
        # gradients that are 0 but for rounding are compared with the largest of all
        apart = (
            min(relative_error(found, wanted), 10 * np.abs(found - wanted).max() / scale)
            for found, wanted in zip(gradients, other_gradients)
        )
        errors.append(max(apart))
        if errors[-1] < 1e-4:
            break
    assert errors, "rounding moves the losses of every input"
    assert min(errors) < 1e-4
    assert max(errors) < 2e-2


def nudged(arrays: Arrays, seed: int) -> Arrays:
    """The same pictures, each value moved up or down by one rounding, or left."""
    query, label, support, masks = arrays
    rng = np.random.default_rng(seed)

    def moved(x):
        steps = rng.integers(-1, 2, x.shape).astype(np.float32)
        return jt.array(x.numpy() * (1 + np.float32(2**-23) * steps))

    return moved(query), label, moved(support), masks


@pytest.mark.parametrize("cpp", [False, True])
@pytest.mark.parametrize("sa", [False, True])
@pytest.mark.parametrize("ssa", [False, True])
def test_every_ablation_gives_the_textbooks_logits(cpp, sa, ssa):
    model = lively(published_network("vgg16", cpp=cpp, sa=sa, ssa=ssa, width=16))
    query, _, support, masks = batch((32, 48), 2, 2)
    model.eval()
    with jt.no_grad():
        logits = model(query, support, masks)
        model.fused = False
        expected = model(query, support, masks)
    assert logits.shape == [2, 2, 32, 48]
    assert relative_error(logits.numpy(), expected.numpy()) < 1e-4


def test_sizes_that_the_network_cannot_take_are_refused():
    model = published_network("vgg16", width=16)
    with pytest.raises(ValueError, match="multiples of 8"):
        model(jt.zeros((1, 3, 36, 32)), jt.zeros((1, 1, 3, 36, 32)), jt.zeros((1, 1, 36, 32)))


def test_without_weight_the_auxiliary_branch_is_not_computed():
    arguments = batch()
    with_branch = published_network("vgg16", width=16)
    without = published_network("vgg16", width=16, sa=False)
    with_branch.sa.fused = None  # would fail if it were called
    for model in (with_branch, without):
        model.train()
        model.dropout_source.reseed(3, 7)
    main, auxiliary = with_branch.losses(*arguments, 0.0)
    other, nothing = without.losses(*arguments, 0.4)
    assert auxiliary is None
    assert nothing is None
    assert main.item() == other.item()  # same initial weights, same dropout: the same function


def test_prototypes_are_averaged_over_shots_or_divided_by_the_batch():
    _, _, support, masks = batch(shot=2)
    divided = {}
    for average in ("shots", "batch"):
        model = published_network(
            "vgg16", width=16, protocol=Protocol(prototype_average=average), head_init="kaiming_normal"
        )
        model.eval()
        features = model.features(support.reshape(2, 3, 32, 32))
        shots, mean = model.encode_supports(features.unsqueeze(0), masks)
        total = sum(prototype.numpy() for _, prototype in shots)
        divided[average] = float(np.abs(total).sum() / np.abs(mean.numpy()).sum())
    assert divided["shots"] == pytest.approx(2, rel=1e-5)
    assert divided["batch"] == pytest.approx(1, rel=1e-5)


def test_auxiliary_loss_of_the_released_code_counts_padding_and_the_last_shot_only():
    arguments = batch(shot=2)

    def auxiliary(**protocol):
        plain = {"width": 16, "dropout": False, "head_init": "kaiming_normal"}
        model = published_network("vgg16", protocol=Protocol(**protocol), **plain)
        model.train()
        return model.losses(*arguments, 0.4)[1].item()

    corrected = auxiliary()
    assert auxiliary(aux_loss="last") < 0.75 * corrected
    assert auxiliary(aux_padding="background") != pytest.approx(corrected, rel=1e-4)


@pytest.mark.parametrize(("mode", "drifts"), [("eval", False), ("train", True)])
def test_backbone_statistics_drift_only_where_the_released_protocol_lets_them(mode, drifts):
    model = published_network("vgg16_bn", width=16, protocol=Protocol(backbone_mode=mode))
    norm = model.backbone.layer0[1]
    before = norm.running_mean.numpy().copy()
    model.train()
    main, _ = model.losses(*batch(), 0.0)
    main.item()
    jt.sync_all()
    assert (np.abs(norm.running_mean.numpy() - before).max() > 0) == drifts


def test_backbone_gets_no_gradient():
    model = published_network("vgg16", width=16)
    assert all(p.is_stop_grad() for p in model.backbone.parameters())
    trained = {id(p) for group in model.parameter_groups(0.1) for p in group["params"]}
    assert trained == {id(p) for n, p in model.named_parameters() if not p.is_stop_grad()}


def test_learning_rate_groups_are_those_of_the_released_code():
    model = published_network("vgg16", width=16)
    slow, fast = model.parameter_groups(0.001)
    assert (slow["lr"], fast["lr"]) == (0.001, 0.01)
    names = {id(p): n for n, p in model.named_parameters()}
    tops = [sorted({names[id(p)].rsplit(".", 1)[0].split(".")[0] for p in g["params"]}) for g in (slow, fast)]
    assert tops == [
        ["compare1", "compare2", "cpp", "down_query", "down_supp", "sa"],
        ["refine1", "refine2", "sa", "ssa"],
    ]


def test_dropout_drops_whole_channels_and_repeats_with_seed_and_iteration():
    model = published_network("vgg16", width=32)
    x = jt.ones((2, 32, 4, 4))
    model.train()
    model.dropout_source.reseed(1, 5)
    first = model.drop(x).numpy()
    model.dropout_source.reseed(1, 5)
    again = model.drop(x).numpy()
    other = model.drop(x).numpy()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    values = first.reshape(2, 32, 16)
    assert (values == values[:, :, :1]).all()
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.8)}


@pytest.mark.parametrize("other", [(2, 8, 0.5), (3, 8, 0.2), None])
def test_masks_that_are_copied_together_are_those_that_are_copied_one_by_one(other):
    """Also where a step asks for others than the one before, from the first on, in the middle, or for more or fewer."""
    usual = [(2, 8, 0.2), (2, 8, 0.2), (2, 4, 0.1)]
    changed = [usual[0], other, usual[2]] if other else usual[:2]
    steps = [usual, usual, changed, usual, [*usual, (1, 8, 0.1)], usual]
    source = DropoutSource()
    for iteration, requests in enumerate(steps):
        source.reseed(3, iteration)
        found = [source.factors(*request).numpy() for request in requests]
        fresh = DropoutSource()
        fresh.reseed(3, iteration)
        for mask, request in zip(found, requests):
            assert np.array_equal(mask, fresh.mask(*request))


def test_a_step_copies_its_masks_once(monkeypatch):
    model = published_network("vgg16", width=16)
    model.train()
    copied, array = [], jt.array
    copying = lambda value, *a, **k: copied.append(np.shape(value)) or array(value, *a, **k)  # noqa: E731
    monkeypatch.setattr(jt, "array", copying)
    for iteration in range(2):
        copied.clear()
        model.dropout_source.reseed(0, iteration)
        model.losses(*batch(), 0.4)
    assert len([shape for shape in copied if len(shape) < 3]) == 1


def test_initial_weights_depend_on_seed_and_name_alone():
    full = published_network("vgg16", width=16, seed=4)
    bare = published_network("vgg16", cpp=False, sa=False, width=16, seed=4)
    other = published_network("vgg16", width=16, seed=5)
    assert np.array_equal(full.ssa.mix.weight.numpy(), bare.ssa.mix.weight.numpy())
    assert not np.array_equal(full.ssa.mix.weight.numpy(), other.ssa.mix.weight.numpy())
    assert full.cpp.norm.weight.numpy().max() == 0  # CPP starts by handing its input through
    assert full.ssa.mix.weight.numpy().std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.1)


class Normed(SpaceSqueezeAttention):
    """SSA with a BatchNorm that nobody declares, and a scale that nobody declares where ``scaled``."""

    def __init__(self, width: int, scaled: bool = False) -> None:
        super().__init__(width)
        self.norm = jt.nn.BatchNorm(width)
        if scaled:
            self.gain = jt.ones(width)


def network_with(decoder, **options):
    return CPANet(published_backbone("vgg16"), MaskedAverage(), decoder, width=16, **options)


@pytest.mark.parametrize("scheme", ["released", "kaiming_normal", "prototype"])
def test_a_norm_added_to_a_part_is_alive(scheme):
    model = network_with(Normed(16), head_init=scheme)
    assert model.ssa.norm.weight.numpy().min() == 1
    assert not model.ssa.norm.bias.numpy().any()


def test_a_weight_whose_start_nobody_declares_is_named():
    with pytest.raises(ValueError, match=r"nothing says how ssa\.gain, a weight of shape \(16,\), starts"):
        network_with(Normed(16, scaled=True))


# ------------------------------------------------------------------ operators


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize(("grid", "size"), [((3, 5), (16, 24)), ((1, 4), (8, 8)), ((7, 2), (10, 6))])
def test_convolution_of_an_enlarged_map(kernel, stride, padding, grid, size):
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((2, 4, *grid)).astype(np.float32))
    weight = jt.array(rng.standard_normal((6, 4, kernel, kernel)).astype(np.float32))
    large = jt.nn.interpolate(x, size=size, mode="bilinear", align_corners=True)
    expected = jt.nn.conv2d(large, weight, stride=stride, padding=padding)
    found = conv_of_upsampled(x, weight, size, stride=stride, padding=padding)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_enlarging_keeps_the_corners():
    x = jt.array(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3))
    large = upsample(x, (9, 7)).numpy()[0, 0]
    assert large.shape == (9, 7)
    np.testing.assert_allclose(
        [large[0, 0], large[0, -1], large[-1, 0], large[-1, -1]], [0, 2, 3, 5], atol=1e-6
    )


def test_a_tied_maximum_gives_its_gradient_to_one_position():
    x = jt.array(np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 0.0, 1.0]], np.float32))
    gradient = jt.grad(first_maximum(x).sum(), x).numpy()
    np.testing.assert_array_equal(gradient.sum(axis=1), [1, 1])
    np.testing.assert_array_equal(gradient.max(axis=1), [1, 1])


def test_max_pooling_rounds_down_and_shares_no_gradient():
    x = jt.array(np.zeros((1, 1, 5, 5), np.float32))
    pooled = max_pool_2x2(x)
    assert pooled.shape == [1, 1, 2, 2]
    gradient = jt.grad(pooled.sum(), x).numpy()
    assert gradient.sum() == 4
    assert gradient.max() == 1


def test_batch_norm_keeps_its_precision_where_the_mean_is_large():
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((4, 2, 8, 8))).astype(np.float32)
    norm = BatchNorm(2)
    norm.train()
    found = norm(jt.array(x)).numpy()
    wide = x.astype(np.float64)
    mean, var = wide.mean(axis=(0, 2, 3), keepdims=True), wide.var(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, (wide - mean) / np.sqrt(var + 1e-5), atol=5e-3)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * mean.ravel(), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * var.ravel() * 256 / 255, rtol=1e-3)
