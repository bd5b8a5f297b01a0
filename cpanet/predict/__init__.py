"""Marking a defect in pictures from a few annotated ones: as a Python object and as ``task=predict``.

Importing this imports no Jittor; a network is started when it is first needed.
"""

from __future__ import annotations

from cpanet.predict.segmenter import NotFittedError, Segmenter, load

__all__ = ["NotFittedError", "Segmenter", "load"]
