"""Weights in and out: this project's ``.safetensors``, released ``.pth`` files, ImageNet backbones. No code is ever run.

``description`` and ``files`` import no Jittor; ``weights`` and ``restore``, which put tensors into a model, do.
"""
