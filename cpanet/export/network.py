"""CPANet as graphs: the modules of :mod:`cpanet.models` once more, in ONNX's operators, from the tensors by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cpanet.data.transforms import MEAN, STD
from cpanet.export.graph import Graph

EPSILON = 1e-6  # as in cpanet.models.feature_norm
# the classes that are written here; any other has to be refused
PARTS = (
    "cpanet.models.backbones.VGG16",
    "cpanet.models.backbones.ResNet",
    "cpanet.models.CrossPositionProxy",
    "cpanet.models.MaskedAverage",
    "cpanet.models.SpaceSqueezeAttention",
    "cpanet.models.ConvDecoder",
)
Tensors = Mapping[str, np.ndarray]
SIDES = ("height", "width")


class Kind(NamedTuple):
    """Properties of a network that its tensors do not tell.

    ``feature_norm``: see :func:`cpanet.models.feature_norm.normalise_features`; ``support_mask``: one of
    :data:`cpanet.protocol.SupportMask`; ``prior``: stage of the residual prior, None without.
    """

    feature_norm: str = "plain"
    support_mask: str = "point"
    prior: str | None = None


def support_encoder(
    tensors: Tensors, size: int | None, kind: Kind, scale: float, metadata: Mapping[str, str]
) -> Any:
    """Supports → prototype: images (K, 3, H, W) RGB in 0–255, masks (K, H, W) → (1, C), averaged over K.

    In masks 1 is defect, 0 is background, and everything else, such as padding, is neither.
    ``size``: of the pictures, None leaves it free. ``scale`` multiplies the mean (1, but for networks that were trained
    with a sum of prototypes). With a residual prior its two prototypes stand behind the mean.
    """
    graph = Graph("support_encoder", tensors)
    height, width = SIDES if size is None else (size, size)
    images = graph.input("images", ("K", 3, height, width))
    masks = graph.input("masks", ("K", height, width))
    stages = _backbone(graph, images)
    feature = graph.relu(graph.conv(_features(graph, stages, kind), "down_supp"))
    small = _shrink(graph, _where(graph, masks, 1), feature, kind.support_mask)
    if "cpp.theta.weight" in tensors:
        prototypes = _cross_position_proxy(graph, graph.node("Mul", feature, small))
    else:
        prototypes = _mean_where(graph, feature, small, [2, 3])
    mean = graph.node("ReduceMean", prototypes, axes=[0], keepdims=1)
    if scale != 1:
        mean = graph.node("Mul", mean, scale)
    if kind.prior is not None:
        frozen = _frozen(graph, stages, kind.prior)
        means = [_class_mean(graph, frozen, masks, label, kind.support_mask) for label in (1, 0)]
        mean = graph.node("Concat", mean, *means, axis=1)
    graph.output(mean, "prototype", (1, _length(tensors, kind)))
    return graph.model(metadata)


def query_segmenter(tensors: Tensors, size: int | None, kind: Kind, metadata: Mapping[str, str]) -> Any:
    """Queries and a prototype → logits: images (N, 3, H, W) RGB in 0–255, prototype (1, C) → logits (N, 2, H, W) and
    probability of defect (N, H, W)."""
    graph = Graph("query_segmenter", tensors)
    height, width = SIDES if size is None else (size, size)
    images = graph.input("images", ("N", 3, height, width))
    prototype = graph.input("prototype", (1, _length(tensors, kind)))
    stages, own = _backbone(graph, images), prototype
    if kind.prior is not None:
        own = graph.node("Slice", prototype, [0], [_width(tensors)], [1])
    logits = _decode(graph, _features(graph, stages, kind), own, images)
    if kind.prior is not None:
        logits = graph.node("Add", logits, _prior(graph, stages, kind.prior, prototype, images))
    background, foreground = (graph.node("Gather", logits, np.int64(channel), axis=1) for channel in (0, 1))
    probability = graph.node("Sigmoid", graph.node("Sub", foreground, background))
    graph.output(logits, "logits", ("N", 2, height, width))
    graph.output(probability, "probability", ("N", height, width))
    return graph.model(metadata)


def _width(tensors: Tensors) -> int:
    return int(tensors["down_query.weight"].shape[0])


def _length(tensors: Tensors, kind: Kind) -> int:
    """Of a prototype."""
    if kind.prior is None:
        return _width(tensors)
    channels = int(tensors["down_query.weight"].shape[1])
    f3 = _channels_f3(tensors)
    used = {"f3": f3, "f2": channels - f3}.get(kind.prior.split("_")[0], channels)
    return _width(tensors) + 2 * used


def _channels_f3(tensors: Tensors) -> int:
    return 1024 if "backbone.layer1.0.conv1.weight" in tensors else 512


# ---------------------------------------------------------------------- backbones


class Stages(NamedTuple):
    """Maps of a backbone: layer2, layer3, and layer3 before its pooling (the same, where it has none)."""

    f2: str
    f3: str
    unpooled: str


def _features(graph: Graph, stages: Stages, kind: Kind) -> str:
    """[layer3 ‖ layer2 on its grid], normalised as in :mod:`cpanet.models.feature_norm`."""
    features, feature_norm = _both(graph, stages), kind.feature_norm
    if feature_norm == "plain":
        return features
    if feature_norm == "standard":
        features = graph.node("Sub", features, graph.node("GlobalAveragePool", features))
    axes = [1] if feature_norm == "position" else [1, 2, 3]
    square = graph.node("ReduceMean", graph.node("Mul", features, features), axes=axes, keepdims=1)
    root = graph.node("Sqrt", graph.node("Add", square, EPSILON))
    return graph.node("Div", features, root)


def _both(graph: Graph, stages: Stages) -> str:
    return graph.node("Concat", stages.f3, graph.upsample(stages.f2, stages.f3), axis=1)


def _frozen(graph: Graph, stages: Stages, prior: str) -> str:
    """The features that the prior compares: :func:`cpanet.models.prototype_baseline.stage_of` of the frozen features."""
    f3 = stages.unpooled if prior.endswith("_unpooled") else stages.f3
    name = prior.replace("_unpooled", "")
    if name == "f3":
        return f3
    f2 = graph.upsample(stages.f2, f3)
    return f2 if name == "f2" else graph.node("Concat", f3, f2, axis=1)


def _backbone(graph: Graph, images: str) -> Stages:
    """Of pictures in 0–255."""
    mean, std = (graph.constant(v.reshape(1, 3, 1, 1), n) for v, n in ((MEAN, "mean"), (STD, "std")))
    x = graph.node("Div", graph.node("Sub", images, mean), std)
    resnet = "backbone.layer1.0.conv1.weight" in graph.tensors
    return _resnet(graph, x) if resnet else _vgg(graph, x)


def _vgg(graph: Graph, x: str) -> Stages:
    f2 = unpooled = x
    for stage in range(4):
        f2, unpooled = x, _convolutions(graph, x, f"backbone.layer{stage}")
        x = graph.max_pool(unpooled, 2, 2, ceil=True)
    return Stages(f2, x, unpooled)


def _convolutions(graph: Graph, x: str, stage: str, stride_of_first: int = 1) -> str:
    """The convolutions of a sequence, each with its BatchNorm, if it has one, and ReLU."""
    pattern = re.compile(re.escape(stage) + r"\.(\d+)\.weight")
    found = (m for m in map(pattern.fullmatch, graph.tensors) if m and graph.tensors[m[0]].ndim == 4)
    for number, index in enumerate(sorted(int(match[1]) for match in found)):
        kernel = graph.tensors[f"{stage}.{index}.weight"].shape[-1]
        x = graph.conv(x, f"{stage}.{index}", stride_of_first if number == 0 else 1, padding=kernel // 2)
        if f"{stage}.{index + 1}.running_mean" in graph.tensors:
            x = graph.batch_norm(x, f"{stage}.{index + 1}")
        x = graph.relu(x)
    return x


def _resnet(graph: Graph, x: str) -> Stages:
    x = _convolutions(graph, x, "backbone.layer0", stride_of_first=2)
    x = graph.max_pool(x, 3, 2, padding=1)
    x = _layer(graph, x, "backbone.layer1", stride=1, dilation=1)
    f2 = _layer(graph, x, "backbone.layer2", stride=2, dilation=1)
    f3 = _layer(graph, f2, "backbone.layer3", stride=1, dilation=2)
    return Stages(f2, f3, f3)


def _layer(graph: Graph, x: str, name: str, stride: int, dilation: int) -> str:
    block = 0
    while f"{name}.{block}.conv1.weight" in graph.tensors:
        x = _bottleneck(graph, x, f"{name}.{block}", stride if block == 0 else 1, dilation)
        block += 1
    return x


def _bottleneck(graph: Graph, x: str, name: str, stride: int, dilation: int) -> str:
    y = graph.relu(graph.batch_norm(graph.conv(x, f"{name}.conv1"), f"{name}.bn1"))
    y = graph.conv(y, f"{name}.conv2", stride, padding=dilation, dilation=dilation)
    y = graph.relu(graph.batch_norm(y, f"{name}.bn2"))
    y = graph.batch_norm(graph.conv(y, f"{name}.conv3"), f"{name}.bn3")
    if f"{name}.downsample.0.weight" in graph.tensors:
        x = graph.batch_norm(graph.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
    return graph.relu(graph.node("Add", y, x))


# ---------------------------------------------------------------------- prototypes


def _where(graph: Graph, masks: str, label: int) -> str:
    """masks (K, H, W) → where they hold ``label``, (K, 1, H, W) of 0 and 1."""
    found = graph.node("Cast", graph.node("Equal", masks, label), to=1)
    return graph.node("Unsqueeze", found, [1])


def _shrink(graph: Graph, mask: str, like: str, how: str) -> str:
    """:func:`cpanet.models.masks.shrink_mask`."""
    if how == "point":
        return graph.upsample(mask, like)
    small = graph.area(mask, like)
    fullest = graph.node("ReduceMax", small, axes=[1, 2, 3], keepdims=1)
    return graph.node("Div", small, graph.node("Max", fullest, 1e-6))


def _class_mean(graph: Graph, frozen: str, masks: str, label: int, how: str) -> str:
    """:func:`cpanet.models.prototype_baseline.class_means` of one class: frozen (K, C, h, w) → (1, C)."""
    where = _where(graph, masks, label)
    weight = graph.upsample(where, frozen) if how == "point" else graph.area(where, frozen)
    return graph.node("Unsqueeze", _mean_where(graph, frozen, weight, [0, 2, 3]), [0])


def _prior(graph: Graph, stages: Stages, prior: str, prototype: str, images: str) -> str:
    """The term that :class:`cpanet.models.prior.ResidualPrior` adds to the logits, (N, 2, H, W)."""
    width = _width(graph.tensors)
    rest = graph.node("Slice", prototype, [width], [2**31 - 1], [1])
    pair = _unit(graph, graph.node("Reshape", rest, [2, -1]), 1)  # defect, background
    kernel = graph.node("Unsqueeze", pair, [2, 3])
    cosines = graph.node("Conv", _unit(graph, _frozen(graph, stages, prior), 1), kernel, kernel_shape=[1, 1])
    defect, background = (graph.node("Slice", cosines, [i], [i + 1], [1]) for i in (0, 1))
    difference = graph.upsample(graph.node("Sub", defect, background), images)
    added = graph.node(
        "Add", graph.node("Mul", difference, graph.weight("prior.scale")), graph.weight("prior.shift")
    )
    return graph.node("Concat", graph.node("Mul", added, 0), added, axis=1)


def _unit(graph: Graph, x: str, axis: int) -> str:
    square = graph.node("ReduceSum", graph.node("Mul", x, x), [axis], keepdims=1)
    return graph.node("Div", x, graph.node("Sqrt", graph.node("Max", square, 1e-12)))


def _cross_position_proxy(graph: Graph, masked: str) -> str:
    """CPP: masked (K, C, h, w) → (K, C)."""

    def flat(x: str) -> str:
        return graph.node("Reshape", x, [0, 0, -1])

    theta = graph.conv(masked, "cpp.theta")
    queries = graph.node("Transpose", flat(theta), perm=[0, 2, 1])
    keys = flat(graph.max_pool(graph.conv(masked, "cpp.phi"), 2, 2))
    values = graph.node("Transpose", flat(graph.max_pool(graph.conv(masked, "cpp.g"), 2, 2)), perm=[0, 2, 1])
    attention = graph.node("Softmax", graph.node("MatMul", queries, keys), axis=2)
    gathered = graph.node("Transpose", graph.node("MatMul", attention, values), perm=[0, 2, 1])
    on_grid = graph.node("Reshape", gathered, graph.node("Shape", theta))
    block = graph.batch_norm(graph.conv(on_grid, "cpp.project"), "cpp.norm")
    return _vector(graph, graph.node("GlobalMaxPool", graph.node("Add", block, masked)))


def _mean_where(graph: Graph, feature: str, weight: str, axes: list[int]) -> str:
    """Weighted mean over ``axes``: feature (K, C, h, w), weight (K, 1, h, w)."""
    total = graph.node("ReduceSum", graph.node("Mul", feature, weight), axes, keepdims=0)
    area = graph.node("ReduceSum", weight, axes, keepdims=0)
    return graph.node("Div", total, graph.node("Max", area, 1e-4))


def _vector(graph: Graph, x: str) -> str:
    """(N, C, 1, 1) → (N, C)."""
    return graph.node("Squeeze", x, [2, 3])


# ---------------------------------------------------------------------- comparison and decoder


def _decode(graph: Graph, features: str, prototype: str, images: str) -> str:
    """Logits (N, 2, H, W)."""
    width = _width(graph.tensors)
    query = graph.relu(graph.conv(features, "down_query"))
    kernel = graph.tensors["compare1.weight"][:, :width, 0, 0].astype(np.float32)
    constant = graph.node("MatMul", prototype, graph.constant(kernel.T, "compare1.prototype"))
    x = graph.conv(query, "compare1", columns=slice(width, 2 * width))
    x = graph.relu(graph.node("Add", x, graph.node("Unsqueeze", constant, [2, 3])))
    for name in ("compare2", "refine1", "refine2"):
        x = graph.relu(graph.conv(x, name, padding=1))
    if "ssa.classify.weight" in graph.tensors:
        return _space_squeeze_attention(graph, x, images)
    return graph.upsample(graph.conv(x, "classify"), images)


def _space_squeeze_attention(graph: Graph, x: str, images: str) -> str:
    width = _width(graph.tensors)
    large = graph.upsample(x, images)
    x1 = graph.relu(graph.conv(large, "ssa.down1", stride=2))
    x2 = graph.relu(graph.conv(x1, "ssa.down2", stride=2))
    # a 1×1 convolution commutes with the enlargement: three small ones instead of one on a threefold large map
    parts = [
        graph.upsample(graph.conv(part, "ssa.fuse", columns=slice(i * width, (i + 1) * width)), images)
        for i, part in enumerate((x, x1, x2))
    ]
    t = graph.relu(graph.node("Sum", *parts))
    t = graph.relu(graph.conv(t, "ssa.mix", padding=1))
    residual = graph.relu(graph.conv(t, "ssa.residual", padding=1))
    return graph.conv(graph.node("Add", residual, _cbam(graph, t)), "ssa.classify")


def _cbam(graph: Graph, t: str) -> str:
    """Channel attention, then spatial attention (N, C, H, W)."""
    squeeze, expand = (
        graph.constant(
            graph.tensors[f"ssa.channel.{part}.weight"].astype(np.float32).T, f"ssa.channel.{part}"
        )
        for part in ("squeeze", "expand")
    )
    scores = [
        graph.node("MatMul", graph.relu(graph.node("MatMul", _vector(graph, pooled), squeeze)), expand)
        for pooled in (graph.node("GlobalMaxPool", t), graph.node("GlobalAveragePool", t))
    ]
    weights = graph.node("Sigmoid", graph.node("Add", *scores))
    attended = graph.node("Mul", t, graph.node("Unsqueeze", weights, [2, 3]))
    maximum = graph.node("ReduceMax", attended, axes=[1], keepdims=1)
    mean = graph.node("ReduceMean", attended, axes=[1], keepdims=1)
    both = graph.node("Concat", maximum, mean, axis=1)
    spatial = graph.node("Sigmoid", graph.conv(both, "ssa.spatial.conv", padding=3))
    return graph.node("Mul", attended, spatial)
