"""Measure docs/predict.md anew: run its commands as they stand there, and put what comes out into the page and the pictures.

    python docs/figures/again.py                                    # on the embedded set: numbers, predict.jpg, episodes.jpg
    python docs/figures/again.py --metal8 DIR --weights FILE        # and the table of real steel

Whoever changes a command of the page runs this afterwards; words about the numbers remain to be written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
FIGURES = REPO / "docs" / "figures"
TABLE = "| | pixels | IoU |\n|---|---|---|\n"
NUMBER = r"[−\d.]+"


class Place:
    """A folder in which the page's commands work, and what they leave there."""

    def __init__(self, folder: Path, extra: str) -> None:
        self.folder, self.extra = folder, extra
        for name in ("run.py", "examples"):
            (folder / name).symlink_to(REPO / name)
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PYTHONPATH": str(REPO), "PATH": search}

    def run(self, command: str) -> dict[str, Any]:
        """``result.json`` of the run that the command leaves, empty where it leaves none; a training gets ``extra``."""
        trains = command.startswith("python run.py") and "task=" not in command
        before = set(self.folder.glob("outputs/*/result.json"))
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-ec", f"{command} {self.extra}" if trains else command],
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        new = sorted(set(self.folder.glob("outputs/*/result.json")) - before)
        return {**json.loads(new[-1].read_text()), "directory": new[-1].parent} if new else {}

    def draw(self, script: str, *arguments: object) -> None:
        """Run a script of this folder."""
        command = [sys.executable, str(REPO / "docs" / "figures" / script), *map(str, arguments)]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True)


def blocks(page: str) -> list[list[str]]:
    """The commands of each block of the page: loops are one, lines that go on are joined."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        joined = re.sub(r"^for .*?^done$", lambda m: m[0].replace("\n", "; "), block, flags=re.M | re.S)
        joined = joined.replace("do; ", "do ").replace("\\\n", " ")
        found.append(joined.strip().splitlines())
    return found


def put(page: str, pattern: str, *values: object) -> str:
    """The page with the groups of the one match of ``pattern`` replaced."""
    (match,) = re.finditer(pattern, page)
    for group in reversed(range(len(values))):
        start, end = match.span(group + 1)
        page = page[:start] + re.sub(r"-(?=\d)", "−", str(values[group])) + page[end:]
    return page


def embedded(page: str, place: Place, figures: Path) -> str:
    """The page with the numbers of the embedded set; both pictures drawn."""
    prepare, (train, predict), (evaluate,) = blocks(page)[:3]
    for command in prepare:
        place.run(command)
    trained = place.run(f"{train} hydra.run.dir=outputs/defaults")
    predicted, evaluated = place.run(predict), place.run(evaluate)
    place.draw("predict.py", "annotated", predicted["directory"], figures / "predict.jpg")
    place.draw("episodes.py", trained["directory"], figures / "episodes.jpg")
    page = put(page, rf"IoU of \*\*({NUMBER})\*\*", f"{predicted['iou']:.3f}")
    interval = rf"({NUMBER}) to ({NUMBER})"
    values = [evaluated[what][key] for what in ("miou", "over_floor") for key in ("mean", "low", "high")]
    page = put(
        page,
        rf"mIoU \*\*({NUMBER})\*\* \({interval}\), ({NUMBER}) \({interval}\) above",
        *(f"{value:.3f}" for value in values),
    )
    print(f"README, the default: {scores(trained)}")
    return page


def real(page: str, place: Place, weights: str) -> str:
    """The page with the table of real steel."""
    commands = blocks(page)[3]
    results = [place.run(command.replace("=FILE", f"={weights}")) for command in commands]
    (trained,) = (result for result in results if result.get("iterations"))
    predictions = [result for result in results if result.get("task") == "predict"]
    best = max(result["iou"] for result in predictions)
    rows = []
    for result in predictions:
        how = (
            f"trained, {trained['iterations']} iterations, last epoch ({trained['last']['epoch']})"
            if result["checkpoint"]
            else f"`method=prototype`, `baseline.stage={result['config']['baseline']['stage']}`"
        )
        iou = f"{result['iou']:.3f}"
        rows.append(
            f"| {how} | {result['image_size']} | {f'**{iou}**' if result['iou'] == best else iou} |\n"
        )
    start = page.index(TABLE) + len(TABLE)
    page = page[:start] + "".join(rows) + page[page.index("\n\n", start) + 1 :]
    return put(page, r"1-shot over both classes of the fold, (.*)\.\n", scores(trained))


def scores(trained: dict[str, Any]) -> str:
    """Best and last epoch of a training, the untrained network and the training-free baseline."""
    best, last, untrained, baseline = (
        trained[which]["miou"] for which in ("best", "last", "untrained", "floor")
    )
    return (
        f"mIoU {best:.3f} at its best epoch, {last:.3f} at its last; {untrained:.3f} before it, "
        f"{baseline:.3f} the training-free baseline"
    )


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    """The text of a file, changed."""
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--metal8", type=Path, metavar="DIR", help="the data set metal8, for the table of real steel"
    )
    parser.add_argument("--weights", metavar="FILE", help="ImageNet weights of VGG-16, for the same")
    parser.add_argument("--real-only", action="store_true", help="the table of real steel and nothing else")
    parser.add_argument("--page", type=Path, default=REPO / "docs" / "predict.md", help="read and rewritten")
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="DIR", help="where pictures go")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="work in this empty folder and leave it")
    parser.add_argument(
        "--train-with", default="", metavar="OVERRIDES", help="added to trainings, to try this out"
    )
    options = parser.parse_args()
    if options.metal8 and not options.weights:
        parser.error("--metal8 needs --weights")
    with tempfile.TemporaryDirectory(prefix="cpanet-again-") as temporary:
        place = Place((options.folder or Path(temporary)).resolve(), options.train_with)
        if not options.real_only:
            rewrite(options.page, lambda page: embedded(page, place, options.figures.resolve()))
        if options.metal8:
            (place.folder / "metal8").symlink_to(options.metal8.resolve())
            place.environment["METAL8_ROOT"] = str(options.metal8.resolve())
            weights = Path(options.weights)
            file = str(weights.resolve()) if weights.exists() else options.weights
            rewrite(options.page, lambda page: real(page, place, file))
    print(f"{options.page} has the numbers now; read again what it says of them.")


if __name__ == "__main__":
    main()
