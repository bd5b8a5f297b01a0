"""Loss terms, on logits of two classes (0 = background, 1 = defect); label 255 is ignored."""

from typing import Any, ClassVar

from pydantic import SerializeAsAny

from cpanet import runtime
from cpanet.section import Component, NonNegative, Positive, Section, Text

IGNORE = 255


class LossTerm(Component):
    """A term that is added to the loss. Derive from it to add your own, inside this package or outside it.

    ``term(logits (N, 2, H, W), target (N, H, W) in {0, 1, 255}) → scalar``; label 255 is ignored.
    """

    KEY: ClassVar[str] = "recipe.loss.terms"

    def __call__(self, logits: Any, target: Any) -> Any:
        raise NotImplementedError


class LossTerms(Section):
    """What is added to or changed in the paper's cross-entropy; the defaults change nothing.

    dice: weight of a soft Dice term. focal_gamma: exponent γ of the focal weight (1−p)^γ on the cross-entropy.
    foreground: weight of a defect pixel in the cross-entropy's mean, a sound pixel's being 1.
    terms: of one's own, by any name, added to the loss.
    """

    dice: NonNegative = 0.0
    focal_gamma: NonNegative = 0.0
    foreground: Positive = 1.0
    terms: dict[Text, SerializeAsAny[LossTerm]] = {}


CROSS_ENTROPY = LossTerms()


def segmentation_loss(logits, target, terms: LossTerms = CROSS_ENTROPY):
    """logits (N, 2, H, W), target (N, H, W) in {0, 1, 255} → scalar."""
    difference, defect, valid = _prepare(logits, target)
    loss = _cross_entropy(difference, defect, valid, terms.focal_gamma, terms.foreground)
    if terms.dice:
        loss = loss + terms.dice * _dice(difference, defect, valid)
    for term in terms.terms.values():
        loss = loss + term(logits, target)
    return loss


def cross_entropy(logits, target):
    """Mean cross-entropy over the labelled pixels; 0 where there is none. Shapes as :func:`segmentation_loss`."""
    return segmentation_loss(logits, target)


def _prepare(logits, target):
    valid = (target != IGNORE).float32()
    return logits[:, 1] - logits[:, 0], (target == 1).float32(), valid


def _cross_entropy(difference, defect, valid, gamma: float, foreground: float):
    """With two classes it depends on the logits' difference d alone: softplus(d) − defect·d."""
    pixel = _softplus(difference) - defect * difference
    if gamma:
        pixel = pixel * (1.0 - runtime.jt.exp(-pixel)).maximum(1e-6).pow(gamma)
    if foreground != 1.0:
        valid = valid * (1.0 + (foreground - 1.0) * defect)
    return (pixel * valid).sum() / valid.sum().maximum(1.0)


def _dice(difference, defect, valid):
    """1 − 2·|P∩T| / (|P| + |T|) on probabilities, an image at a time, smoothed by one pixel (Milletari et al. 2016)."""
    probability = runtime.jt.sigmoid(difference) * valid
    defect = defect * valid
    overlap = (probability * defect).sum(dims=[1, 2])
    total = probability.sum(dims=[1, 2]) + defect.sum(dims=[1, 2])
    return (1.0 - (2.0 * overlap + 1.0) / (total + 1.0)).mean()


def _softplus(x):
    return x.maximum(0.0) + runtime.jt.log(1.0 + runtime.jt.exp(-x.abs()))
