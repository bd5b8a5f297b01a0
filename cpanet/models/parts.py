"""The four kinds of parts that a network is made of. Derive from one to add your own, inside this package or outside it.

Notation of all shapes: B episodes, K shots, image H×W, feature grid h×w, C = ``width`` channels.
"""

from __future__ import annotations

from typing import Any

from cpanet.runtime import jt


class Backbone(jt.nn.Module):
    """A frozen feature extractor: ``execute(images (N, 3, H, W)) → (N, channels, h, w)``, images being normalised RGB.

    channels: of the features. channels_f3: how many of them, the first ones, come from the deeper stage ``f3``; the rest
    are ``f2``. name: what messages call it.

    ``execute`` and :meth:`unpooled` are the layers one after the other; a backbone that has a faster way to the same values
    overrides :meth:`fused` and :meth:`unpooled_fused`.
    """

    channels: int
    channels_f3: int
    name = "a backbone"

    def own_name(self, name: str) -> str | None:
        """Name here of a tensor called ``name`` in a file of ImageNet weights; None for one that is not used."""
        return name

    def unpooled(self, images: Any) -> Any:
        """images (N, 3, H, W) → features before the backbone's last pooling, where that is part of it; else the features."""
        return self(images)

    def pooled(self, unpooled: Any) -> Any:
        """Pools the result of :meth:`unpooled` to that of :meth:`execute`."""
        return unpooled

    def fused(self, images: Any) -> Any:
        """:meth:`execute`, computed faster."""
        return self.execute(images)

    def unpooled_fused(self, images: Any) -> Any:
        """:meth:`unpooled`, computed faster."""
        return self.unpooled(images)


class Part(jt.nn.Module):
    """A part of the head, made from ``width`` alone.

    name: the first word of its weights' names, in files and for their random numbers; empty: the name of the class.
    fast: whether its weights learn at ``head_lr_multiplier`` times the base rate: all, none, or those of the named layers.

    ``initial(name, shape, scheme, rng)``, where it has one, says how its weights start
    (:func:`cpanet.models.init.initialise`). ``execute`` is the formula as it stands in a book; a part that has a faster way
    to the same values overrides :meth:`fused`, with the arguments of ``execute``.
    """

    name = ""
    fast: bool | tuple[str, ...] = False

    @classmethod
    def weights_name(cls) -> str:
        """Prefix of the names of its weights."""
        return cls.name or cls.__name__

    def fused(self, *arguments: Any) -> Any:
        """:meth:`execute`, computed faster."""
        return self.execute(*arguments)


class Prototype(Part):
    """``execute(feature (B, C, h, w), mask (B, 1, h, w) in [0, 1]) → prototype (B, C)`` of the support's defect."""


class Decoder(Part):
    """``execute(x (B, C, h, w), size (H, W)) → logits (B, 2, H, W)``, background first.

    logit_layer: the layer that gives the logits, empty where it is the decoder itself; with a residual prior it starts
    small.
    """

    logit_layer = ""
    fast: bool | tuple[str, ...] = True


class Auxiliary(Part):
    """``execute(feature (B, C, h, w), prototype (B, C), size (H, W)) → logits (B, 2, H, W)`` of one support image."""
