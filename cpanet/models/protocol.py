"""Where the released code departs from the paper, one switch each (DESIGN: ``corrected`` is the default)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """The behaviours in which the released code differs; the defaults are the corrected ones.

    prototype_average: ``shots`` divides the summed prototypes by K, ``batch`` by the batch size.
    aux_loss: ``mean`` over the shots, or ``last``: the last shot's loss divided by K.
    backbone_mode: ``eval`` keeps the frozen backbone's BatchNorm statistics, ``train`` lets them drift in training.
    aux_padding: ``ignore`` the padding (label 255) of the support in the auxiliary loss, or count it as ``background``.
    """

    prototype_average: str = "shots"
    aux_loss: str = "mean"
    backbone_mode: str = "eval"
    aux_padding: str = "ignore"


CORRECTED = Protocol()
RELEASED = Protocol("batch", "last", "train", "background")
