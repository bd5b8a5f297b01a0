"""What Jittor 1.3.11.0 needs changed to build against CUDA 13 and cuDNN 9.

The installed package stays as it is. Jittor finds its sources beside its own ``__init__.py``; so it is imported from a
folder of links to the installed files, in which the few files below are replaced by mended copies. Every mend names what
it replaces, and that must be there exactly as often as expected: otherwise this is another Jittor, and nothing is mended.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cpanet.errors import UserError
from cpanet.runtime.links import make_folder

VERSION = "1.3.11.0"


@dataclass(frozen=True)
class Mend:
    """``old`` becomes ``new`` in ``file`` (inside the package), ``times`` times; ``why`` it has to."""

    file: str
    why: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True)
class LeftOut:
    """Files of the package (a pattern) that are not linked, and why not."""

    pattern: str
    why: str


SOURCES = (
    Mend(
        "extern/cuda/inc/helper_cuda.h",
        "cudaDeviceProp has no computeMode since CUDA 13; a GPU that forbids computing refuses by itself",
        "deviceProp.computeMode",
        "cudaComputeModeDefault",
        times=3,
    ),
    Mend(
        "extern/cuda/inc/helper_cuda.h",
        "cudaDeviceProp has no clockRate since CUDA 13; here it only ranks GPUs by speed",
        "sm_per_multiproc * deviceProp.clockRate;",
        "sm_per_multiproc;",
    ),
    Mend(
        "compile_extern.py",
        "cuDNN 9 is split into other libraries than cuDNN 8",
        '["libcudnn_ops_infer.so", "libcudnn_ops_train.so", "libcudnn_cnn_infer.so", "libcudnn_cnn_train.so"]',
        '["libcudnn_graph.so", "libcudnn_ops.so", "libcudnn_cnn.so"]',
    ),
    Mend(
        "src/misc/cuda_limits.h",
        "npp.h, a library of image processing, is wanted for four limits of integers",
        "#include <npp.h>\n",
        "#include <climits>\n"
        "#define NPP_MIN_32U 0\n"
        "#define NPP_MAX_32U UINT_MAX\n"
        "#define NPP_MIN_32S INT_MIN\n"
        "#define NPP_MAX_32S INT_MAX\n"
        "#define NPP_MIN_64U 0\n"
        "#define NPP_MAX_64U ULLONG_MAX\n"
        "#define NPP_MIN_64S LLONG_MIN\n"
        "#define NPP_MAX_64S LLONG_MAX\n",
    ),
    Mend(
        "compiler.py",
        "CUDA 13's C++ headers (cub, thrust) need C++17; the flags of nvcc are derived from these",
        'cc_flags += " -Wall -Wno-unknown-pragmas -std=c++14 -fPIC "',
        'cc_flags += " -Wall -Wno-unknown-pragmas -std=c++17 -fPIC "',
    ),
    Mend(
        "compiler.py",
        "nvcc from 11.4 on was given C++14 and a flag of another compiler in the place of C++17",
        'nvcc_flags.replace("-std=c++17", "-std=c++14 -Xcompiler -std:c++14")',
        "nvcc_flags",
    ),
    Mend(
        "compiler.py",
        "newer GPUs were compiled for 9.0, whose machine code they do not run",
        "    max_arch = 90\n",
        "    max_arch = 121\n",
    ),
    Mend(
        "compiler.py",
        "links are not followed, or operators are compiled from the installed sources, beside which no mended ones lie",
        "        name = os.path.realpath(name)\n",
        "        name = os.path.abspath(name)\n",
    ),
    Mend(
        "src/ops/transpose_op.cc",
        "without CUTT, which cannot be downloaded any more, transposes were computed by the host: the device was waited "
        "for, and the whole map copied there and back",
        "    if (axes.size() < xdim || (axes.size() == xdim && axes[xdim-1]==xdim-1)) {\n",
        "    if (use_cuda || axes.size() < xdim || (axes.size() == xdim && axes[xdim-1]==xdim-1)) {\n",
    ),
    Mend(
        "other/code_softmax.py",
        "cub::Max went with CUDA 13's C++ headers",
        "BlockReduce(temp_storage).Reduce(v1, cub::Max())",
        "BlockReduce(temp_storage).Reduce(v1, cuda::maximum<>())",
    ),
    Mend(
        "other/code_softmax.py",
        "where its successor is defined",
        "#include <{jt.compile_extern.cub_home}cub/cub.cuh>\n",
        "#include <{jt.compile_extern.cub_home}cub/cub.cuh>\n#include <cuda/functional>\n",
        times=2,
    ),
    Mend(
        "extern/cuda/cub/ops/cub_where_op.cc",
        "cub's iterators went, too; thrust has the same",
        "cub::CountingInputIterator<To> counting_itr(0);",
        "thrust::counting_iterator<To> counting_itr(0);",
    ),
    Mend(
        "extern/cuda/cub/ops/cub_where_op.cc",
        "the same",
        "cub::TransformInputIterator<bool, NonZeroOp<Ti>, Ti*> itr(cond->ptr<Ti>(), NonZeroOp<Ti>());",
        "auto itr = thrust::make_transform_iterator(cond->ptr<Ti>(), NonZeroOp<Ti>());",
    ),
    Mend(
        "extern/cuda/cub/ops/cub_where_op.cc",
        "where thrust's are defined",
        "#include <thrust/transform.h>\n",
        "#include <thrust/iterator/counting_iterator.h>\n#include <thrust/iterator/transform_iterator.h>\n",
    ),
    Mend(
        "depthwise_conv.py",
        "cub::LaneId went, too",
        "cub::LaneId()",
        "cuda::ptx::get_sreg_laneid()",
    ),
    Mend(
        "depthwise_conv.py",
        "where its successor is defined",
        'cub/cub.cuh>"+"""',
        'cub/cub.cuh>\\n#include <cuda/ptx>"+"""',
    ),
)
CONVOLUTIONS = tuple(
    f"extern/cuda/cudnn/ops/cudnn_{name}_op.cc" for name in ("conv", "conv_backward_x", "conv_backward_w")
)
PRECISION = tuple(
    Mend(
        file,
        "at every use_tensorcore but 0 Jittor let cuDNN convert to float16, with its small range; at 0 TF32 was used. Now 0 "
        "is float32, 1 and 2 (bfloat16, which cuDNN does not convert to) are TF32, 3 is float16",
        "    if(use_tensorcore){\n",
        "    if (use_tensorcore == 0)\n"
        "        checkCudaErrors(cudnnSetConvolutionMathType(cudnnConvDesc, CUDNN_FMA_MATH));\n"
        "    if (use_tensorcore > 2) {\n",
    )
    for file in CONVOLUTIONS
)
MENDS = SOURCES + PRECISION
LEFT_OUT = (
    LeftOut("extern/cuda/cudnn/ops/cudnn_rnn*", "cuDNN 9 has the functions for recurrent networks no more"),
    LeftOut("extern/cuda/cudnn/*/cudnn_rnn_descriptor.*", "the same"),
    LeftOut("**/__pycache__/*", "compiled from the files that are not mended"),
)


def installed() -> Path:
    """The folder of the installed Jittor, without importing it."""
    spec = importlib.util.find_spec("jittor")
    if spec is None or spec.origin is None:
        raise UserError(f"Jittor is not installed. Remedy: pip install jittor=={VERSION}")
    return Path(spec.origin).parent


def present(folder: Path, package: Path | None = None, version: str | None = None) -> Path:
    """The mended Jittor below ``folder``: a folder to import ``jittor`` from. Made once for an installed Jittor.

    ``package`` and ``version`` are those of the installed one. UserError where the mends do not fit it. Call it under
    the import lock.
    """
    package = installed() if package is None else package
    version = metadata.version("jittor") if version is None else version
    if version != VERSION:
        raise UserError(
            f"CUDA 13 needs Jittor {VERSION}, for which its mends are made; installed is {version}. "
            f"Remedy: pip install jittor=={VERSION}"
        )
    texts = mended(package)
    place = folder / f"jittor-{_key(package, texts)}"
    if (place / "jittor" / "__init__.py").exists():
        return place
    left_out = {file for rule in LEFT_OUT for file in package.glob(rule.pattern)}
    sources = {
        str(f.relative_to(package)): f for f in package.rglob("*") if f.is_file() and f not in left_out
    }
    return make_folder(
        place,
        {f"jittor/{name}": source for name, source in sources.items() if name not in texts},
        {f"jittor/{name}": (text, 0o644) for name, text in texts.items()},
    )


def mended(package: Path, mends: Sequence[Mend] = MENDS) -> dict[str, str]:
    """Names of the files that are replaced, and their mended texts. UserError where a mend does not fit."""
    texts: dict[str, str] = {}
    for mend in mends:
        text = texts.get(mend.file) or _read(package / mend.file)
        if text.count(mend.old) != mend.times:
            raise UserError(
                f"The mends for CUDA 13 do not fit the installed Jittor ({mend.file} is not as expected). "
                f"Remedy: pip install --force-reinstall --no-deps jittor=={VERSION}"
            )
        texts[mend.file] = text.replace(mend.old, mend.new)
    return texts


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf8")
    except OSError:
        return ""


def _key(package: Path, texts: dict[str, str]) -> str:
    """Of what decides the folder: where Jittor is installed, and what is mended."""
    digest = hashlib.sha256(f"{package}\n{LEFT_OUT}\n".encode())
    for name, text in sorted(texts.items()):
        digest.update(f"{name}\n{text}\n".encode())
    return digest.hexdigest()[:12]
