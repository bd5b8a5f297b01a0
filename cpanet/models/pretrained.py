"""Where a backbone's ImageNet weights come from."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from pathlib import Path

from cpanet.errors import UserError
from cpanet.files import write_atomically

ADDRESS = "https://download.pytorch.org/models/"
# torchvision's ImageNet weights (V1, those the publications used); the name ends with the first 8 digits of the SHA-256
OFFICIAL = {
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
# the deep-stem networks come from the authors of PSPNet's PyTorch code; no address serves them without a person
DEEP = {
    "resnet50_deep": "resnet50_v2.pth",
    "resnet101_deep": "resnet101_v2.pth",
    "resnet152_deep": "resnet152_v2.pth",
}
TIMEOUT_SECONDS = 20  # without a byte
DOWNLOAD_SECONDS = 1800


def find_weights(backbone: str, asked: str, cache: Path) -> tuple[Path | None, str]:
    """File with the weights that ``backbone.weights=asked`` means, and a sentence that says which or why none.

    ``asked`` is ``auto`` (the cache, then the official address), ``random`` (none) or a path. A path that does not
    exist is a :class:`UserError`; ``auto`` without success is not, the caller decides what it means.
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
    name = OFFICIAL.get(backbone) or DEEP[backbone]
    for candidate in (folder / name, folder / f"{backbone}.safetensors", folder / f"{backbone}.pth"):
        if candidate.is_file():
            return candidate, f"backbone weights from {candidate}"
    if backbone in DEEP:
        return None, f"no ImageNet weights for {backbone}: put {name} (from the semseg project) into {folder}"
    try:
        return _download(name, folder / name), f"backbone weights {name} from {ADDRESS}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return None, f"no ImageNet weights for {backbone}: {ADDRESS}{name} cannot be had ({_reason(error)})"


def instructions(backbone: str, cache: Path) -> str:
    """What to do where there are none."""
    name = OFFICIAL.get(backbone) or DEEP[backbone]
    source = (
        f"{ADDRESS}{name}" if backbone in OFFICIAL else f"{name} (ImageNet weights of the semseg project)"
    )
    return (
        f"Fetch {source} and put it into {cache / 'weights'}, or give backbone.weights=FILE; "
        "backbone.weights=random trains on random features on purpose."
    )


def _download(name: str, target: Path) -> Path:
    pieces, deadline = [], time.monotonic() + DOWNLOAD_SECONDS
    with urllib.request.urlopen(ADDRESS + name, timeout=TIMEOUT_SECONDS) as response:
        while piece := response.read(1 << 20):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise ValueError(f"it takes longer than {DOWNLOAD_SECONDS / 60:.0f} minutes")
    content = b"".join(pieces)
    digest = hashlib.sha256(content).hexdigest()
    wanted = name.rsplit("-", 1)[1].split(".")[0]
    if not digest.startswith(wanted):
        raise ValueError(f"its SHA-256 {digest[:8]}… is not {wanted}…")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content)
    return target


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
