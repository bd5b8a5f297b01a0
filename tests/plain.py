"""CPANet as the paper writes it down, for comparison: every map enlarged, every concatenation built.

Works on the weights of a :class:`cpanet.models.CPANet`, with dropout off and one BatchNorm call a shot.
"""

from __future__ import annotations

import numpy as np

from cpanet.runtime import jt

nn = jt.nn


def enlarge(x, size):
    """Bilinear, align_corners=True, by gathering the four neighbours."""
    height, width = size
    rows = np.linspace(0, x.shape[2] - 1, height) if height > 1 else np.zeros(1)
    columns = np.linspace(0, x.shape[3] - 1, width) if width > 1 else np.zeros(1)
    r0, c0 = np.floor(rows).astype(int), np.floor(columns).astype(int)
    r1, c1 = np.minimum(r0 + 1, x.shape[2] - 1), np.minimum(c0 + 1, x.shape[3] - 1)
    fr = jt.array((rows - r0).astype(np.float32)).reshape(1, 1, -1, 1)
    fc = jt.array((columns - c0).astype(np.float32)).reshape(1, 1, 1, -1)

    def pick(r, c):
        return x[:, :, jt.array(r)][:, :, :, jt.array(c)]

    top = pick(r0, c0) * (1 - fc) + pick(r0, c1) * fc
    bottom = pick(r1, c0) * (1 - fc) + pick(r1, c1) * fc
    return top * (1 - fr) + bottom * fr


def conv(layer, x):
    return nn.conv2d(x, layer.weight, layer.bias, stride=layer.stride, padding=layer.padding)


def expand(prototype, like):
    return prototype.reshape(*prototype.shape, 1, 1).expand(*prototype.shape, *like.shape[2:])


def decode(model, features, prototype, size):
    query = nn.relu(conv(model.down_query, features))
    x = nn.relu(conv(model.compare1, jt.concat([expand(prototype, query), query], dim=1)))
    for layer in (model.compare2, model.refine1, model.refine2):
        x = nn.relu(conv(layer, x))
    x = enlarge(x, size)
    if model.ssa is None:
        return conv(model.classify, x)
    ssa = model.ssa
    x1 = nn.relu(conv(ssa.down1, x))
    x2 = nn.relu(conv(ssa.down2, x1))
    t = nn.relu(conv(ssa.fuse, jt.concat([x, enlarge(x1, size), enlarge(x2, size)], dim=1)))
    t = nn.relu(conv(ssa.mix, t))
    residual = nn.relu(conv(ssa.residual, t))
    pooled = [
        ssa.channel.expand(nn.relu(ssa.channel.squeeze(p))) for p in (t.max(dims=[2, 3]), t.mean(dims=[2, 3]))
    ]
    attended = t * jt.sigmoid(pooled[0] + pooled[1]).reshape(*t.shape[:2], 1, 1)
    both = jt.concat([attended.max(dim=1, keepdims=True), attended.mean(dim=1, keepdims=True)], dim=1)
    return conv(ssa.classify, residual + attended * jt.sigmoid(conv(ssa.spatial.conv, both)))


def auxiliary(model, feature, prototype, size):
    sa = model.sa
    vectors = expand(prototype, feature)
    x = nn.relu(conv(sa.mix1, jt.concat([feature, vectors, vectors], dim=1)))
    x = enlarge(nn.relu(conv(sa.mix2, x)), size)
    x = nn.relu(conv(sa.cls2, nn.relu(conv(sa.cls1, x))))
    return conv(sa.cls3, x)


def passes(model, query, support, support_mask):
    """Query logits and, with SA, the list of support logits."""
    size = tuple(query.shape[2:])
    shots, auxiliaries = [], []
    for i in range(support.shape[1]):
        feature = nn.relu(conv(model.down_supp, model.features(support[:, i])))
        mask = enlarge((support_mask[:, i] == 1).float32().unsqueeze(1), tuple(feature.shape[2:]))
        if model.cpp is None:
            prototype = (feature * mask).sum(dims=[2, 3]) / mask.sum(dims=[2, 3]).maximum(1e-4)
        else:
            prototype = model.cpp(feature * mask)
        shots.append(prototype)
        if model.sa is not None:
            auxiliaries.append(auxiliary(model, feature, prototype, size))
    mean = sum(shots[1:], shots[0]) / len(shots)
    return decode(model, model.features(query), mean, size), auxiliaries
