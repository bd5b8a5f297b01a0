"""CPANet on Jittor: few-shot segmentation of steel-surface defects."""

__version__ = "0.1.0"
