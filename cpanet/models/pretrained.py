"""Finds a backbone's ImageNet weights: a file, the cache, or a download."""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from cpanet.errors import UserError
from cpanet.files import write_atomically

DIGEST = re.compile(r"-([0-9a-f]{8,64})\.")  # of an address: the first digits of the file's SHA-256
TIMEOUT_SECONDS = 20  # without a byte
DOWNLOAD_SECONDS = 1800


def find_weights(backbone: str, imagenet: str | None, asked: str, cache: Path) -> tuple[Path | None, str]:
    """File with the weights that ``backbone.weights=asked`` means, and a sentence that says which or why none.

    ``imagenet``: what the option ``backbone`` declares: an address, the name of a file that none serves, or None.
    ``asked`` is ``auto`` (the cache, then the address), ``random`` (none) or a path. A path that does not exist is a
    :class:`UserError`; ``auto`` without success is not, the caller decides what it means.
    """
    if asked == "random":
        return None, "the backbone has random weights, as asked for"
    if asked != "auto":
        path = Path(asked).expanduser()
        if not path.is_file():
            raise UserError(
                f"backbone.weights={asked}: there is no such file. Give a .safetensors, .pth or .pkl file, or auto."
            )
        return path.resolve(), f"backbone weights from {path}"
    folder = cache / "weights"
    name = _file_name(imagenet)
    own = () if name is None else (folder / name,)
    for candidate in (*own, folder / f"{backbone}.safetensors", folder / f"{backbone}.pth"):
        if candidate.is_file():
            return candidate, f"backbone weights from {candidate}"
    if imagenet is None or name is None:
        return None, f"no ImageNet weights are known for {backbone}"
    if not _is_address(imagenet):
        return None, f"no ImageNet weights for {backbone}: put {name} (from the semseg project) into {folder}"
    try:
        return _download(imagenet, folder / name), f"backbone weights {name} from {imagenet[: -len(name)]}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return None, f"no ImageNet weights for {backbone}: {imagenet} cannot be had ({_reason(error)})"


def instructions(backbone: str, imagenet: str | None, cache: Path) -> str:
    """Instructions for a machine without weights."""
    if imagenet is None:
        return (
            f"Give backbone.weights=FILE, or put {backbone}.safetensors into {cache / 'weights'}; "
            "backbone.weights=random trains on random features on purpose."
        )
    source = imagenet if _is_address(imagenet) else f"{imagenet} (ImageNet weights of the semseg project)"
    return (
        f"Fetch {source} and put it into {cache / 'weights'}, or give backbone.weights=FILE; "
        "backbone.weights=random trains on random features on purpose."
    )


def _is_address(imagenet: str) -> bool:
    return "://" in imagenet


def _file_name(imagenet: str | None) -> str | None:
    return None if imagenet is None else imagenet.rpartition("/")[2] or None


def _download(address: str, target: Path) -> Path:
    pieces, deadline = [], time.monotonic() + DOWNLOAD_SECONDS
    with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
        while piece := response.read(1 << 20):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise ValueError(f"it takes longer than {DOWNLOAD_SECONDS / 60:.0f} minutes")
    content = b"".join(pieces)
    digest, wanted = hashlib.sha256(content).hexdigest(), DIGEST.search(target.name)
    if wanted and not digest.startswith(wanted[1]):
        raise ValueError(f"its SHA-256 {digest[:8]}… is not {wanted[1]}…")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content)
    return target


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
