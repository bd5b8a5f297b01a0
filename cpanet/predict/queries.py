"""The pictures of ``query=…``, and the names that their results get. Names only; nothing is read."""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cpanet.data.check import printable
from cpanet.data.folder import IMAGES, MASKS, is_mask_name, list_folder, masks_by_stem, natural_key
from cpanet.data.images import IMAGE_SUFFIXES
from cpanet.errors import UserError


class Query(NamedTuple):
    """A picture: where it is, its path below what was asked for, and its results' path without a suffix."""

    path: Path
    name: str
    output: str


def find_queries(query: str | None, key: str = "query") -> list[Query]:
    """Every picture that ``query`` means, in natural order: a folder and all below it, a file, or a pattern.

    ``key``: what it is called in the configuration.

    Hidden files are left out, and masks: ``GT/`` beside ``Images/``, ``x_mask.png`` beside ``x.png``. Results keep the
    sub-folders, so that equal names in different folders stay apart; where two pictures of a folder differ in their
    suffix alone, their results keep that too. Raises UserError where there is no picture.
    """
    if not query:
        raise UserError(
            f'{key} = null: give the pictures to mark: {key}=DIR, or a pattern in quotes: {key}="DIR/*.jpg".'
        )
    root, files = _files(query, key)
    pictures = [f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES]
    if not os.path.isfile(query):  # a file that is named is meant
        pictures = [f for f in pictures if not _is_mask(f)]
        beside: dict[str, set[str]] = {}
        for file in pictures:
            beside.setdefault(os.path.dirname(file), set()).add(Path(file).stem)
        pictures = [f for f in pictures if not is_mask_name(f, beside[os.path.dirname(f)])]
    if not pictures:
        what = "holds" if os.path.isdir(query) and not files else "matches"
        raise UserError(
            f"{key}={printable(query)} {what} no pictures ({', '.join(IMAGE_SUFFIXES)}). Give a folder or a pattern."
        )
    names = sorted((os.path.relpath(f, root).replace(os.sep, "/") for f in pictures), key=natural_key)
    stems = [os.path.splitext(name)[0] for name in names]
    number = Counter(stem.casefold() for stem in stems)
    return [
        Query(Path(root, name), name, stem if number[stem.casefold()] == 1 else name)
        for name, stem in zip(names, stems)
    ]


def _files(query: str, key: str) -> tuple[str, list[str]]:
    """The folder that names are below, and the files."""
    if os.path.isdir(query):
        return query, _below(query)
    if os.path.isfile(query):
        return os.path.dirname(query) or ".", [query]
    if not glob.has_magic(query):
        raise UserError(f"{key}={printable(query)} does not exist. Give a folder, a picture or a pattern.")
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), query.split("/")[:-1])
    root = "/".join(fixed) or ("/" if query.startswith("/") else ".")
    found: dict[str, None] = {}  # each once
    for match in glob.glob(query, recursive=True):
        if os.path.isdir(match):
            found.update(dict.fromkeys(_below(match)))
        elif os.path.isfile(match):
            found[match] = None
    return root, list(found)


def _below(folder: str) -> list[str]:
    found = []
    for top, children, files in os.walk(folder, followlinks=False):
        children[:] = [c for c in children if not c.startswith(".")]
        found += [os.path.join(top, f) for f in files if not f.startswith(".")]
    return found


def _is_mask(path: str) -> bool:
    folder = os.path.dirname(path)
    return os.path.basename(folder) == MASKS and os.path.isdir(os.path.join(os.path.dirname(folder), IMAGES))


def truth_of(query: Query) -> Path | None:
    """The mask of a picture that lies in a data set: ``GT/NAME.png`` (or NAME_mask.png, …) beside ``Images/NAME.jpg``."""
    folder, stem = query.path.parent, query.path.stem
    if folder.name != IMAGES:
        return None
    truths = folder.parent / MASKS
    if (truths / f"{stem}.png").is_file():
        return truths / f"{stem}.png"
    name = masks_by_stem(list_folder(truths), {stem}).get(stem)
    return None if name is None else truths / name
