"""Weights in and out: this project's ``.safetensors``, released ``.pth`` files, ImageNet backbones. No code is ever run."""

from cpanet.checkpoint.files import read_checkpoint, read_tensors, write_checkpoint
from cpanet.checkpoint.weights import load_backbone_weights, load_weights, model_tensors

__all__ = [
    "load_backbone_weights",
    "load_weights",
    "model_tensors",
    "read_checkpoint",
    "read_tensors",
    "write_checkpoint",
]
