"""Patches with which Jittor 1.3.11.0 builds against CUDA 13 and cuDNN 9: ``patches.yaml``, each with its reason.

The installed package stays as it is. Jittor finds its sources beside its own ``__init__.py``; so it is imported from a
folder of links to the installed files, in which the few files that are patched are copies. What a patch replaces must be
there exactly as often as expected: otherwise this is another Jittor, and nothing is patched.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from cpanet.errors import UserError
from cpanet.runtime.links import make_folder

VERSION = "1.3.11.0"


@cache
def content() -> dict[str, Any]:
    """``patches.yaml``: ``patches`` (file or files, why, old, new, times), ``left_out`` (pattern of files, why)."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def installed() -> Path:
    """The folder of the installed Jittor, without importing it."""
    spec = importlib.util.find_spec("jittor")
    if spec is None or spec.origin is None:
        raise UserError(f"Jittor is not installed. Remedy: pip install jittor=={VERSION}")
    return Path(spec.origin).parent


def present(folder: Path) -> Path:
    """The patched Jittor below ``folder``: a folder to import ``jittor`` from. Made once for an installed Jittor.

    UserError where the patches do not fit the installed one. Call it under the import lock.
    """
    package, version = installed(), metadata.version("jittor")
    if version != VERSION:
        raise UserError(
            f"CUDA 13 needs Jittor {VERSION}, for which its patches are made; installed is {version}. "
            f"Remedy: pip install jittor=={VERSION}"
        )
    texts = patched(package)
    digest = hashlib.sha256(repr((str(package), content()["left_out"], sorted(texts.items()))).encode())
    place = folder / f"jittor-{digest.hexdigest()[:12]}"
    if (place / "jittor" / "__init__.py").exists():
        return place
    left_out = {file for rule in content()["left_out"] for file in package.glob(rule["pattern"])}
    sources = {
        str(f.relative_to(package)): f for f in package.rglob("*") if f.is_file() and f not in left_out
    }
    return make_folder(
        place,
        {f"jittor/{name}": source for name, source in sources.items() if name not in texts},
        {f"jittor/{name}": text for name, text in texts.items()},
    )


def patched(package: Path) -> dict[str, str]:
    """Names of the files that are replaced, and their new texts. UserError where a patch does not fit."""
    texts: dict[str, str] = {}
    for patch in content()["patches"]:
        files = [patch["file"]] if isinstance(patch["file"], str) else patch["file"]
        for name in files:
            file = package / name
            text = texts.get(name) or (file.read_text(encoding="utf8") if file.is_file() else "")
            if text.count(patch["old"]) != patch.get("times", 1):
                raise UserError(
                    f"The patches for CUDA 13 do not fit the installed Jittor ({name} is not as expected). "
                    f"Remedy: pip install --force-reinstall --no-deps jittor=={VERSION}"
                )
            texts[name] = text.replace(patch["old"], patch["new"])
    return texts
