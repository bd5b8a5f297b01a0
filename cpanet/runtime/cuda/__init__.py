"""CUDA: whether it can be used here (``judge``), and what Jittor needs to be given for it (``tree``, ``mends``)."""

from cpanet.runtime.cuda import mends
from cpanet.runtime.cuda.driver import Driver, Gpu, read_driver
from cpanet.runtime.cuda.judge import GIB, CudaReport, judge, probe_cuda
from cpanet.runtime.cuda.toolkit import Toolkit, ToolkitPlaces, find_toolkit
from cpanet.runtime.cuda.tree import assemble

__all__ = [
    "GIB",
    "CudaReport",
    "Driver",
    "Gpu",
    "Toolkit",
    "ToolkitPlaces",
    "assemble",
    "find_toolkit",
    "judge",
    "mends",
    "probe_cuda",
    "read_driver",
]
