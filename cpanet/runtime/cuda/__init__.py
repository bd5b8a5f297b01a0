"""CUDA: the probe of this machine (``probe``), and what Jittor needs for CUDA 13 (``toolkit_links``, ``patches``)."""

from cpanet.runtime.cuda import patches
from cpanet.runtime.cuda.probe import GIB, CudaReport, Driver, Gpu, cuda_report, probe_cuda, read_driver
from cpanet.runtime.cuda.toolkit import Toolkit, ToolkitPlaces, find_toolkit
from cpanet.runtime.cuda.toolkit_links import assemble

__all__ = [
    "GIB",
    "CudaReport",
    "Driver",
    "Gpu",
    "Toolkit",
    "ToolkitPlaces",
    "assemble",
    "cuda_report",
    "find_toolkit",
    "patches",
    "probe_cuda",
    "read_driver",
]
