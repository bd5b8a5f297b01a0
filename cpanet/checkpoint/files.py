"""Tensor files: safetensors written atomically; safetensors, ``.pth`` and ``.pkl`` read without executing anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cpanet.checkpoint.pkl import read_pkl
from cpanet.checkpoint.pth import read_pth
from cpanet.errors import UserError
from cpanet.files import write_atomically

FORMAT = "cpanet/1"
MODEL_PREFIX = "model."  # in this project's checkpoints, beside "optimizer."
SAFETENSORS = ".safetensors"
READERS = {".pth": read_pth, ".pt": read_pth, ".pkl": read_pkl}  # PyTorch's and Jittor's files
SUFFIXES = (SAFETENSORS, *READERS)


def write_checkpoint(path: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write ``tensors`` and the JSON-able ``state``: to a temporary name, flushed to disk, then renamed.

    Whoever reads ``path`` meanwhile, or after a crash at any moment, finds the old file or the new one, never a part.
    """
    metadata = {"format": FORMAT, "state": json.dumps(state)}
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomically(path, save(contiguous, metadata=metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and state of a file that :func:`write_checkpoint` wrote; :class:`UserError` where it is none or damaged."""
    tensors, metadata = _read_safetensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project (no {FORMAT!r} in its header).")
    return tensors, state_of(metadata, path)


def state_of(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Network and run as the header of ``path`` describes them. Raises UserError where it does not."""
    try:
        state = json.loads(metadata["state"])
    except (KeyError, ValueError):
        state = None
    if not isinstance(state, dict):
        raise UserError(f"{path}: damaged (its header holds no state). Fetch or write it again.")
    return state


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a ``.safetensors``, PyTorch ``.pth`` or Jittor ``.pkl`` file by name.

    :class:`UserError` for anything else.
    """
    path = Path(path)
    _check_name(path)
    return _read_safetensors(path)[0] if path.suffix == SAFETENSORS else READERS[path.suffix](path)


def check_file(path: Path) -> None:
    """Raises UserError where :func:`read_tensors` would, as cheaply as the format allows."""
    _check_name(path)
    if path.suffix == SAFETENSORS:
        read_header(path, str(path))  # which says how long the file is
    else:
        READERS[path.suffix](path)


def _check_name(path: Path) -> None:
    known = f"{', '.join(SUFFIXES)} files"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Weights are read from {known}.")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: weights are read from {known}, not {path.suffix or 'this'!r}. Convert it, or give it its right name."
        )


def read_header(path: Path, named: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name, and the metadata, of a ``.safetensors`` file, which errors call ``named``."""
    with _opened(path, named) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return shapes, dict(file.metadata() or {})


@contextmanager
def _opened(path: Path, named: str) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(
            f"{named}: damaged or not a safetensors file ({error}). Fetch or write it again."
        ) from None
    except OSError as error:
        raise UserError(f"{named}: cannot be read ({error.strerror or error}). Give another file.") from None


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with _opened(path, str(path)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
