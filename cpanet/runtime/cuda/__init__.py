"""CUDA: the probe of this machine (``probe``), and what Jittor needs for CUDA 13 (``toolkit_links``, ``patches``)."""
