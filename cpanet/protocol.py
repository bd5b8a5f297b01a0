"""The differences between the released code and the paper, one switch each."""

from typing import Literal, Optional

from cpanet.section import Section, Text

SupportMask = Literal["area", "point"]


class Protocol(Section):
    """The behaviours in which the released code differs; the defaults are the corrected ones, but for ``support_mask``.

    prototype_average: ``shots`` divides the summed prototypes by K, ``batch`` by the batch size.
    aux_loss: ``mean`` over the shots, or ``last``: the last shot's loss divided by K.
    backbone_mode: ``eval`` keeps the frozen backbone's BatchNorm statistics, ``train`` lets them drift in training.
    aux_padding: ``ignore`` the padding (label 255) of the support in the auxiliary loss, or count it as ``background``.
    support_mask: how the support's mask comes onto the feature grid: ``area`` pools it, which is the corrected way and
    the configuration's default; ``point`` samples it, as the released code, its outputs and runs from before it was a
    choice do, and loses small defects.
    """

    name: Optional[Text] = None
    prototype_average: Literal["shots", "batch"] = "shots"
    aux_loss: Literal["mean", "last"] = "mean"
    backbone_mode: Literal["eval", "train"] = "eval"
    aux_padding: Literal["ignore", "background"] = "ignore"
    support_mask: SupportMask = "point"
