"""The loss, on logits of two classes (0 = background, 1 = defect); label 255 is ignored."""

from typing import Any, ClassVar

from pydantic import SerializeAsAny

from cpanet import runtime
from cpanet.section import Component, NonNegative, Positive, Text

IGNORE = 255


class Loss(Component):
    """The function that training minimises. Derive from it to put another in the place of :class:`SegmentationLoss`.

    ``loss(logits (N, 2, H, W), target (N, H, W) in {0, 1, 255}) → scalar``; label 255 is ignored.
    """

    KEY: ClassVar[str] = "recipe.loss"

    def __call__(self, logits: Any, target: Any) -> Any:
        raise NotImplementedError


class LossTerm(Component):
    """A term that is added to :class:`SegmentationLoss`. Derive from it to add your own, inside this package or outside it.

    ``term(logits (N, 2, H, W), target (N, H, W) in {0, 1, 255}) → scalar``; label 255 is ignored.
    """

    KEY: ClassVar[str] = "recipe.loss.terms"

    def __call__(self, logits: Any, target: Any) -> Any:
        raise NotImplementedError


class SegmentationLoss(Loss):
    """The paper's cross-entropy, averaged over the labelled pixels (0 where there is none), and what a recipe adds to it.

    dice: weight of a soft Dice term. focal_gamma: exponent γ of the focal weight (1−p)^γ on the cross-entropy.
    foreground: weight of a defect pixel in the cross-entropy's mean, a sound pixel's being 1.
    terms: of one's own, by any name, added to the loss.
    """

    dice: NonNegative = 0.0
    focal_gamma: NonNegative = 0.0
    foreground: Positive = 1.0
    terms: dict[Text, SerializeAsAny[LossTerm]] = {}

    def __call__(self, logits: Any, target: Any) -> Any:
        valid = (target != IGNORE).float32()
        difference, defect = logits[:, 1] - logits[:, 0], (target == 1).float32()
        loss = _cross_entropy(difference, defect, valid, self.focal_gamma, self.foreground)
        if self.dice:
            loss = loss + self.dice * _dice(difference, defect, valid)
        for term in self.terms.values():
            loss = loss + term(logits, target)
        return loss


CROSS_ENTROPY = SegmentationLoss()


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
