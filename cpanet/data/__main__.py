"""``python -m cpanet.data``: check or import a data set, build metal8, write the embedded set to look at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpanet.console import replace_unencodable, until_closed
from cpanet.data import importing, metal8, synthetic
from cpanet.data.catalog import FSSD12, METAL8, NAMES, Layout, examine, existing, find_layout, looks_like
from cpanet.data.check import Problem, meanings_of, near_pairs, printable
from cpanet.data.folder import Contents, new_folder
from cpanet.data_section import Meanings
from cpanet.errors import UserError


def class_table(layout: Layout, contents: Contents) -> Table:
    """Images, sizes and defect share of each class."""
    table = Table(title=Text(f"{layout.name}: {len(contents.images)} usable images"))
    for column in ("class", "test fold", "images", "sizes", "defect % (least, median, most)"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for index, name in enumerate(layout.classes):
        masks = [m for m, label in zip(contents.masks, contents.labels) if label == index]
        folds = ", ".join(str(f) for f, fold in enumerate(layout.folds) if name in fold)
        shares = [100 * np.mean(m == 1) for m in masks]
        share = f"{min(shares):.2f}, {np.median(shares):.1f}, {max(shares):.1f}" if shares else "–"
        sizes = " × ".join(_span([m.shape[axis] for m in masks]) for axis in (1, 0)) if masks else "–"
        table.add_row(Text(printable(name)), folds, str(len(masks)), sizes, share)
    return table


def _span(values: Sequence[int]) -> str:
    return "–".join(map(str, sorted({min(values), max(values)})))


def problem_table(problems: Sequence[Problem]) -> Table:
    """Every problem, grouped by rule."""
    table = Table(title=f"{len(problems)} problem{'s' * (len(problems) != 1)}")
    for column in ("rule", "file or class", "what is wrong"):
        table.add_column(column, overflow="fold")
    for problem in sorted(problems, key=lambda p: p.rule):
        table.add_row(problem.rule, Text(problem.file), Text(problem.detail))
    return table


def report_near(layout: Layout, contents: Contents) -> None:
    """Add pictures that are the same but for their compression: a problem across classes, otherwise a note."""
    for first, second in near_pairs(contents.images):
        names = [printable(contents.names[i]) for i in (first, second)]
        if contents.labels[first] == contents.labels[second] or layout.published:
            contents.notes.append(f"{names[1]} is nearly the same picture as {names[0]}")
        else:
            detail = f"is nearly the same picture as {names[0]}: what is tested would be trained on; keep one"
            contents.problems.append(Problem(names[1], "leakage", detail))


def check(arguments: argparse.Namespace) -> int:
    """Print the report; 0 where the data set can be used, 2 where it cannot."""
    root = existing(arguments.root)
    like = (layout.name for layout in (FSSD12, METAL8) if looks_like(layout, root))
    layout = find_layout(arguments.name or next(like, "folder"), root, arguments.folds)
    rule = layout.rule(arguments.mask_threshold, arguments.mask_values)
    contents = examine(layout, root, rule, arguments.shot + 1)
    report_near(layout, contents)
    console = Console()
    console.print(class_table(layout, contents))
    for note in contents.notes:
        console.print(Text(f"note: {note}"))
    if contents.problems:
        console.print(problem_table(contents.problems))
        return 2
    console.print(Text(f"No problems. Fingerprint {contents.fingerprint}", style="green"))
    return 0


def import_set(arguments: argparse.Namespace) -> None:
    """Import a set in another form and say what became of it."""
    imported = importing.import_dataset(arguments.source, arguments.target)
    print(f"{printable(str(arguments.source))} was read as {imported.form}.")
    for name, number in imported.images.items():
        print(f"  {printable(name)}: {number} image{'s' * (number != 1)} with a mask")
    for note in imported.notes:
        print(f"note: {note}")
    target = printable(str(arguments.target))
    print(f"Written to {target}. Next: python -m cpanet.data check {arguments.target}")


def mask_values(text: str) -> Meanings | None:
    """An argparse type: {defect: [1], ignore: [255]}."""
    try:
        read = yaml.safe_load(text)
        if not isinstance(read, dict):
            raise argparse.ArgumentTypeError(f"{text} is no mapping such as '{{defect: [1], ignore: [255]}}'")
        return meanings_of(read)
    except (yaml.YAMLError, UserError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def build_set(arguments: argparse.Namespace) -> None:
    """Build metal8 and say where it is."""
    number = metal8.build_metal8(arguments.sd900, arguments.magnetic_tile, arguments.out, arguments.sources)
    out = printable(str(arguments.out))
    print(f"{number} images written to {out}: data=metal8 data.root={arguments.out}")


def embed(arguments: argparse.Namespace) -> None:
    """Write the embedded set to a folder that does not exist yet."""
    with new_folder(arguments.out) as work:
        synthetic.write(work)
    print(f"{len(synthetic.CLASSES) * synthetic.PER_CLASS} images written to {printable(str(arguments.out))}")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from low to high."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m cpanet.data", description="Check and build data sets.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    new: dict[str, Any] = {"type": Path, "help": "folder to write, which must not exist yet"}

    one = commands.add_parser("check", help="report on a folder of class/Images and class/GT; exit 0 or 2")
    one.set_defaults(function=check)
    one.add_argument("root", type=Path, metavar="ROOT", help="the folder that holds the class folders")
    one.add_argument("--name", choices=NAMES, help="which data set it is (default: by its class folders)")
    shot, grey, folds = whole_number(1, 1000), whole_number(0, 254), whole_number(2, 1000)
    one.add_argument("--shot", type=shot, default=1, help="classes must allow it (default 1)")
    one.add_argument("--mask-threshold", type=grey, help="grey above it is defect")
    one.add_argument("--folds", type=folds, help="equal runs of classes, without dataset.yaml")
    such = "such as '{defect: [1], ignore: [255]}'"
    one.add_argument("--mask-values", type=mask_values, metavar="VALUES", help=such)

    layouts = "make the folder layout of label-coded masks, LabelMe or COCO polygons"
    two = commands.add_parser("import", help=layouts)
    two.set_defaults(function=import_set)
    two.add_argument("source", type=Path, metavar="SOURCE", help="a folder with images and annotations")
    two.add_argument("target", metavar="TARGET", **new)

    three = commands.add_parser("build", help="build a data set from public downloads")
    three.set_defaults(function=build_set)
    three.add_argument("set", choices=["metal8"])
    three.add_argument("--sd900", type=Path, required=True, metavar="DIR_OR_ZIP", help="SD-saliency-900")
    three.add_argument("--magnetic-tile", type=Path, required=True, metavar="DIR_OR_ZIP")
    three.add_argument(
        "--sources", type=Path, default=metal8.SOURCES, metavar="CSV", help="another selection"
    )
    three.add_argument("out", metavar="OUT", **new)

    four = commands.add_parser("embed", help="write the embedded set to a folder, to look at")
    four.set_defaults(function=embed)
    four.add_argument("out", metavar="OUT", **new)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a mistake of the user's ends in one message and exit code 2."""
    replace_unencodable()
    try:
        with until_closed():
            parsed = parser().parse_args(arguments)
            return parsed.function(parsed) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
