"""Loss terms, on logits of two classes."""

from __future__ import annotations

from cpanet.runtime import jt

IGNORE = 255


def cross_entropy(logits, target):
    """Mean cross-entropy over the pixels whose label is not 255.

    logits (N, 2, H, W), target (N, H, W) with 0 = background, 1 = defect, 255 = ignored → scalar. With two classes it
    depends on the difference d of the logits alone: softplus(d) − target·d. No labelled pixel at all gives 0.
    """
    difference = logits[:, 1] - logits[:, 0]
    valid = (target != IGNORE).float32()
    defect = (target == 1).float32()
    softplus = difference.maximum(0.0) + jt.log(1.0 + jt.exp(-difference.abs()))
    return ((softplus - defect * difference) * valid).sum() / valid.sum().maximum(1.0)
