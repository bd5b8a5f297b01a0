"""Whatever is wrong with what a user gives: one message that names the thing and the remedy, status 2, nothing left.

Every case goes through ``run.py``'s own entry point; a few of them in a process of their own.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Literal, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel
from safetensors.numpy import save_file

from cpanet.checkpoint.files import read_checkpoint, write_checkpoint
from cpanet.cli.loader import NAMES, ConfigLoader
from cpanet.config.schema import Config
from cpanet.data import memory
from tests.datasets import encoded, exif, picture, save, write_folder
from tests.hydra_app import run_here, run_process, run_recorded
from tests.sweep_runs import TINY
from tests.test_data_check import CASES, IMAGE, MASK


class Ending(NamedTuple):
    """How a command ended."""

    status: int
    said: str
    jobs: int


def ending(cwd: Path, *typed: str, run: Callable[..., Any] = run_recorded) -> Ending:
    """``python run.py <typed>`` in ``cwd``, training replaced by a recorder unless ``run`` says otherwise."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = run(cwd, *typed)
    status, jobs = ended if isinstance(ended, tuple) else (ended, [])
    return Ending(status, err.getvalue(), len(jobs))


def assert_refused(ended: Ending, cwd: Path) -> None:
    assert ended.status == 2, ended.said
    assert ended.jobs == 0
    assert ended.said.startswith("error: ")
    assert ended.said.count("error: ") == 1
    assert "Traceback" not in ended.said
    assert not list(cwd.iterdir()), "something was written"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


# --------------------------------------------------------------------- configuration


class Key(NamedTuple):
    """A key of the configuration: what it may be, as far as a test wants to know."""

    name: str
    kind: Any


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            while typing.get_origin(kind) in (typing.Union, typing.Annotated):
                kind = typing.get_args(kind)[0]
            yield Key(prefix + name, kind)


# labels are the options' own; a section that names classes has no single value
KEYS = [key for key in keys() if key.name not in (*NAMES, "ablation.label", "data.label")]
SECTIONS = ("ablation.auxiliary", "recipe.loss.terms")
GROUPS = (
    "task",
    "device",
    "fold",
    "shot",
    "profile",
)  # keys that are groups too: refused as options, one at a time


def wrong(key: Key) -> tuple[str, str]:
    """A value of another type, and how a message shows it."""
    if typing.get_origin(key.kind) is Literal or key.kind is str:
        return "3", "3"
    word = {int: "one", float: "much", bool: "perhaps"}.get(key.kind, "one")
    return word, f'"{word}"'


def misspelt(name: str) -> str:
    return name + name[-1]


# key, value, what the message says of it
OUT_OF_RANGE = [
    ("seed", "-1", "greater than or equal to 0"),
    ("seed", str(2**32), "less than 4294967296"),
    ("method", "svm", "one of cpanet, prototype"),
    ("backbone.weights", "''", "at least 1 character"),
    ("backbone.label", "''", "at least 1 character"),
    ("backbone.imagenet", "''", "at least 1 character"),
    ("data.leave_out", "-1", "greater than or equal to 0"),
    ("recipe.episodes.invert", "1.5", "less than or equal to 1"),
    ("recipe.episodes.photometric", "-1", "greater than or equal to 0"),
    ("recipe.episodes.pseudo", "2", "less than or equal to 1"),
    ("recipe.episodes.distractor", "2", "less than or equal to 1"),
    ("recipe.episodes.negative", "-0.5", "greater than or equal to 0"),
    ("recipe.episodes.largest", "0.01", "greater than or equal to 0.03"),
    ("backbone.lr", "0", "greater than 0"),
    ("backbone.lr", "inf", "finite"),
    ("backbone.epochs", "0", "greater than or equal to 1"),
    ("loss.k", "-0.1", "greater than or equal to 0"),
    ("loss.k", "nan", "finite"),
    ("protocol.prototype_average", "shot", "Did you mean shots?"),
    ("protocol.aux_loss", "first", "one of mean, last"),
    ("protocol.backbone_mode", "test", "one of eval, train"),
    ("protocol.aux_padding", "foreground", "one of ignore, background"),
    ("model.width", "0", "greater than or equal to 16"),
    ("model.width", "40", "multiple of 16"),
    ("data.image_size", "24", "greater than or equal to 32"),
    ("data.image_size", "2048", "less than or equal to 1024"),
    ("data.image_size", "201", "multiple of 8, such as 200"),
    ("data.workers", "-1", "greater than or equal to 0"),
    ("data.workers", "1000", "less than or equal to 256"),
    ("data.mask_threshold", "-1", "greater than or equal to 0"),
    ("data.mask_threshold", "255", "less than or equal to 254"),
    ("data.folds", "1", "greater than or equal to 2"),
    ("recipe.optimizer.lr", "0", "greater than 0"),
    ("recipe.optimizer.lr", "-0.1", "greater than 0"),
    ("recipe.optimizer.momentum", "1", "less than 1"),
    ("recipe.optimizer.momentum", "-0.1", "greater than or equal to 0"),
    ("recipe.optimizer.weight_decay", "-1", "greater than or equal to 0"),
    ("recipe.optimizer.head_lr_multiplier", "0", "greater than 0"),
    ("recipe.schedule.warmup_iterations", "-1", "greater than or equal to 0"),
    ("recipe.init.head", "zeros", "one of released, kaiming_normal"),
    ("recipe.clip_grad_norm", "0", "greater than 0"),
    ("recipe.loss.dice", "-1", "greater than or equal to 0"),
    ("recipe.loss.focal_gamma", "-1", "greater than or equal to 0"),
    ("recipe.loss.foreground", "0", "greater than 0"),
    ("recipe.average.ema", "0", "greater than 0"),
    ("recipe.average.ema", "1", "less than 1"),
    ("recipe.average.untrained", "-0.1", "greater than or equal to 0"),
    ("recipe.average.untrained", "1", "less than 1"),
    ("recipe.sampling", "images", "Did you mean image?"),
    ("train.epochs", "0", "greater than or equal to 1"),
    ("train.batch_size", "0", "greater than or equal to 1"),
    ("train.batch_size", "4096", "less than or equal to 1024"),
    ("train.iterations_per_epoch", "0", "greater than or equal to 1"),
    ("evaluate.every", "0", "greater than or equal to 1"),
    ("evaluate.batch_size", "0", "greater than or equal to 1"),
    ("evaluate.episodes", "0", "greater than or equal to 1"),
    ("evaluate.episode_seed", "-1", "greater than or equal to 0"),
    ("log.overlays", "-1", "greater than or equal to 0"),
    ("checkpoint.every_minutes", "0", "greater than 0"),
    ("checkpoint.every_iterations", "0", "greater than or equal to 1"),
]

CHOICES = [key for key in KEYS if typing.get_origin(key.kind) is Literal and key.name not in GROUPS]
OUT_OF_RANGE += [(key.name, "zzz", "must be one of ") for key in CHOICES]

# an override, alone; and words of the message
ALONE = [
    ("task=3", "task = 3: no such option. Options: "),
    ("task=trian", "Did you mean 'train'?"),
    ("device=3", "device = 3: no such option. Options: auto, cpu, cuda."),
    ("device=gpu", "Did you mean 'cpu'?"),
    ("fold=one", 'fold = "one": '),
    ("fold=-1", "fold = -1: must be greater than or equal to 0"),
    ("fold=3", "fold = 3: data set embedded has folds 0, 1, 2"),
    ("shot=one", 'shot = "one": '),
    ("shot=0", "shot = 0: must be greater than or equal to 1"),
    ("shot=25", "at most 24 can be supports"),
    ("profile=3", "profile = 3: no such option. Options: "),
    ("profile=papper", "Did you mean 'paper'?"),
    ("backbone=resnet5", "Did you mean 'resnet50'?"),
    ("ablation=cpp_saa", "Did you mean 'cpp_sa'?"),
    ("ablation.name=cpp", "ablation.name only says what was chosen. To choose: ablation=OPTION."),
    ("protocol.name=released", "To choose: protocol=OPTION."),
    ("recipe.name=paper", "To choose: recipe=OPTION."),
    ("recipe.episodes.name=plain", "To choose: recipe/episodes=OPTION."),
    ("recipe.optimizer.name=sgd", "To choose: recipe/optimizer=OPTION."),
    ("recipe/optimizer=adam", "Did you mean 'adamw'?"),
    ("recipe/schedule=step", 'recipe/schedule = "step": no such option. '),
    ("recipe/schedule=poly recipe.schedule.power=0", "recipe.schedule.power = 0: must be greater than 0"),
    ("+recipe.optimizer.rate=1", "recipe.optimizer.rate: unknown key"),
    ("recipe.optimizer._target_=null", "recipe.optimizer = "),
    ("recipe.optimizer._target_=cpanet.recipe.Poly", "must be a class that derives from cpanet.recipe"),
    (
        "recipe.optimizer._target_=cpanet.recipe.Adam",
        "recipe.optimizer._target_ = cpanet.recipe.Adam: there is no",
    ),
    ("data.root=/no/such/folder", "/no/such/folder"),
    ("data.mask_values={defect:[256]}", "data.mask_values.defect.0 = 256: must be less than or equal to 255"),
    ("data.mask_values={defects:[1]}", "Did you mean data.mask_values"),
    ("data=folder", "data.root = null: where is folder? Give its folder: data.root=PATH"),
    ("data=fsd12", "Did you mean 'fssd12'?"),
    ("data.name=fssd12", "To choose: data=OPTION."),
    (
        "data=embedded data._target_=cpanet.data.Episode",
        "must be a class that derives from cpanet.data.DataSet.",
    ),
    ("data=metal8 data.root=null", "METAL8_ROOT"),
    ("seed=${nowhere}", "nowhere"),
    ("seed=???", "seed"),
    ("~seed", "seed: is missing"),
    ("fold=[", "cannot read 'fold=['"),
    ("resume=nowhere", "not the directory of a run"),
]


def together(problems: dict[str, str], cwd: Path) -> list[str]:
    """The lines of the message about many mistakes at once: one a mistake."""
    ended = ending(cwd, *(f"{key}={value}" for key, value in problems.items()))
    assert_refused(ended, cwd)
    return [line.replace("error: ", "").strip() for line in ended.said.splitlines()]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The messages of every key at once, by kind of mistake: that is one command a kind, not one a key."""
    found: dict[str, list[str]] = {}

    def of(kind: str) -> list[str]:
        if kind not in found:
            cwd = tmp_path_factory.mktemp(kind)
            plain = [key for key in KEYS if key.name not in GROUPS]
            if kind == "type":
                found[kind] = together({key.name: wrong(key)[0] for key in plain}, cwd)
            elif kind == "spelling":
                found[kind] = together({misspelt(key.name): "1" for key in KEYS}, cwd)
            else:
                rounds: list[dict[str, str]] = [{}, {}, {}]  # for up to three bad values of a key
                for key, value, _ in OUT_OF_RANGE:
                    next(chosen for chosen in rounds if key not in chosen)[key] = value
                found[kind] = [line for chosen in rounds for line in together(chosen, cwd)]
        return found[kind]

    return of


@pytest.mark.parametrize("key", [key for key in KEYS if key.name not in GROUPS], ids=lambda key: key.name)
def test_a_key_of_a_wrong_type(key: Key, lines: Any) -> None:
    value = wrong(key)[1]
    (line,) = [line for line in lines("type") if line.startswith(f"{key.name} = ")]
    assert line.startswith(f"{key.name} = {value}: must be "), line


@pytest.mark.parametrize("key", [key for key in KEYS if key.name not in SECTIONS], ids=lambda key: key.name)
def test_a_misspelt_key_brings_the_nearest(key: Key, lines: Any) -> None:
    typed = misspelt(key.name)
    (line,) = [line for line in lines("spelling") if repr(typed) in line]
    assert line.startswith(f"unknown key {typed!r}. Did you mean {key.name!r}?")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["backbone=resnet50", "backbone.depth=99"], "depth = 99: must be one of 50, 101, 152"),
        (["backbone=resnet50", "backbone.depth=deep"], "backbone.depth = 'deep'"),
        (["backbone=vgg16", "+backbone.dilated=true"], "dilated"),
        (["ablation.decoder._target_=cpanet.models.MaskedAverage"], "must be a class that derives from"),
        (["ablation.prototype._target_=cpanet.models.Missing"], "there is no such class"),
        (["method=prototype", "backbone._target_=cpanet.models.SupportAuxiliary"], "must be a class that"),
    ],
)
def test_a_part_of_the_network_that_cannot_be_made(cwd: Path, typed: list[str], says: str) -> None:
    ended = ending(cwd, "data=embedded", "device=cpu", *typed)
    assert_refused(ended, cwd)
    assert says in ended.said


@pytest.mark.parametrize(("key", "value", "says"), OUT_OF_RANGE, ids=[f"{k}={v}" for k, v, _ in OUT_OF_RANGE])
def test_a_key_out_of_range(key: str, value: str, says: str, lines: Any) -> None:
    about = [line for line in lines("range") if line.startswith(f"{key} = ")]
    assert any(says in line for line in about), about


def test_every_key_with_a_range_is_in_the_table() -> None:
    free = (*GROUPS, "data.root", "data.mask_values", *SECTIONS)
    assert {key.name for key in KEYS if key.kind is not bool} - {key for key, _, _ in OUT_OF_RANGE} <= set(
        free
    )


@pytest.mark.parametrize(("typed", "says"), ALONE, ids=[typed for typed, _ in ALONE])
def test_a_mistake_by_itself(typed: str, says: str, cwd: Path) -> None:
    ended = ending(cwd, *typed.split())
    assert_refused(ended, cwd)
    assert says in ended.said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"), [(k, wrong(Key(k, kind))[0]) for k, kind in KEYS if k not in GROUPS]
)
def test_each_key_of_a_wrong_type_alone(key: str, value: str, cwd: Path) -> None:
    assert_refused(ending(cwd, f"{key}={value}"), cwd)


# --------------------------------------------------------------------- images, masks, folders

MORE_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "image missing, mask left": (
        lambda r: [(r / "a/Images" / f"a_{n}.jpg").unlink() for n in (1, 2)],
        "class a has 1 images, one of which is the query",
    ),
    "an empty class": (
        lambda r: [path.unlink() for path in (r / "a/Images").iterdir()],
        "a: class too small: has 0 usable images",
    ),
    "one class alone": (
        lambda r: [shutil.rmtree(r / name) for name in ("b", "c")],
        "holds 1 classes (sub-folders with Images/ and GT/)",
    ),
    "no class at all": (lambda r: [shutil.rmtree(r / name) for name in "abc"], "Check data.root"),
    "images without class folders": (
        lambda r: [
            shutil.move(str(r / "a"), str(r / "deep")),
            shutil.rmtree(r / "b"),
            shutil.rmtree(r / "c"),
        ],
        "Check data.root",
    ),
    "dataset.yaml of another kind": (
        lambda r: (r / "dataset.yaml").write_text("[1, 2"),
        "dataset.yaml cannot be read as YAML",
    ),
    "dataset.yaml that builds objects": (
        lambda r: (r / "dataset.yaml").write_text("name: !!python/object/apply:os.system ['touch ran']"),
        "dataset.yaml cannot be read as YAML",
    ),
    "dataset.yaml with an unknown key": (
        lambda r: (r / "dataset.yaml").write_text("class: [a, b]"),
        "unknown key 'class'. Known are name, classes, folds, mask_threshold, mask_values",
    ),
    "dataset.yaml with a threshold out of range": (
        lambda r: (r / "dataset.yaml").write_text("mask_threshold: 255"),
        "mask_threshold must be a whole number from 0 to 254",
    ),
    "dataset.yaml with a class that leads away": (
        lambda r: (r / "dataset.yaml").write_text("classes: [a, ../b]"),
        "classes must be a list of different class folders",
    ),
    "dataset.yaml with an unknown class in a fold": (
        lambda r: (r / "dataset.yaml").write_text("folds: [[a], [x]]"),
        "fold 1 names x",
    ),
    "dataset.yaml with a fold of everything": (
        lambda r: (r / "dataset.yaml").write_text("folds: [[a, b, c]]"),
        "leaves none to train on",
    ),
    "a mask named as its image is, in capitals": (
        lambda r: (r / MASK).rename(r / "a/GT/A_1.PNG"),
        "a_1.jpg: missing mask",
    ),
    "a damaged image of a very long name": (
        lambda r: [
            save(r / f"a/GT/{'x' * 240}.png", picture(1)[1] * 255),
            (r / f"a/Images/{'x' * 240}.jpg").touch(),
        ],
        f"{'x' * 240}.jpg: unreadable file: is empty",
    ),
    "a damaged image of a Chinese name": (
        lambda r: [save(r / "a/GT/钢.png", picture(1)[1] * 255), (r / "a/Images/钢.jpg").touch()],
        "a/Images/钢.jpg: unreadable file: is empty",
    ),
}


READABLE: dict[str, Callable[[Path], Any]] = {
    "grey image": lambda r: (r / IMAGE).write_bytes(encoded(".png", picture(0)[0][..., 0])),
    "opaque RGBA image": lambda r: Image.fromarray(picture(0)[0]).convert("RGBA").save(r / IMAGE, "PNG"),
    "palette image": lambda r: Image.fromarray(picture(0)[0]).convert("P").save(r / IMAGE, "PNG"),
    "16-bit image": lambda r: (r / IMAGE).write_bytes(encoded(".png", picture(0)[0].astype(np.uint16) * 257)),
    "CMYK image": lambda r: Image.fromarray(picture(0)[0]).convert("CMYK").save(r / IMAGE, "JPEG"),
    "mask of another format": lambda r: (r / MASK).rename(r / "a/GT/a_1.bmp"),
    "image with an EXIF rotation": lambda r: Image.fromarray(picture(0)[0]).save(r / IMAGE, exif=exif(6)),
    "black and white palette mask": lambda r: (
        Image.fromarray(picture(0)[1] * 255).convert("P").save(r / MASK)
    ),
    "mask of 0 and 1": lambda r: save(r / MASK, picture(0)[1]),
    "stray files": lambda r: [
        (r / "a/Images/Thumbs.db").touch(),
        (r / "README.txt").touch(),
        (r / "Nd").mkdir(),
    ],
    "a very long name": lambda r: [
        save(r / f"a/GT/{'x' * 240}.png", picture(7)[1] * 255),
        save(r / f"a/Images/{'x' * 240}.jpg", picture(7)[0]),
    ],
    "a Chinese name": lambda r: [
        save(r / "a/GT/钢板 1.png", picture(7)[1] * 255),
        save(r / "a/Images/钢板 1.jpg", picture(7)[0]),
    ],
    "names like markup": lambda r: [
        save(r / "a/GT/[bold]$x^2$<b>.png", picture(7)[1] * 255),
        save(r / "a/Images/[bold]$x^2$<b>.jpg", picture(7)[0]),
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A folder for data and one to run in, the same for all cases, so that their command is composed once."""
    base, composed = tmp_path_factory.mktemp("place"), {}
    (base / "here").mkdir()
    load = ConfigLoader.load_configuration

    def loading(self: Any, config_name: Any, overrides: Any, run_mode: Any, **others: Any) -> Any:
        key = (config_name, tuple(overrides), run_mode)
        if key not in composed:
            composed[key] = load(self, config_name, overrides, run_mode, **others)
        return copy.deepcopy(composed[key])

    with mock.patch.object(ConfigLoader, "load_configuration", loading):
        yield base / "data", base / "here"


def with_folder(place: tuple[Path, Path], change: Callable[[Path], Any]) -> Ending:
    """How a run on a folder ends that ``change`` was done to."""
    root, here = place
    for path in (root, here / "outputs"):
        shutil.rmtree(path, ignore_errors=True)
    memory.kept.clear()
    change(write_folder(root))
    return ending(here, "data=folder", f"data.root={root}", "shot=1")


# Every case of CASES is read in tests/test_data_check.py; these show what a run makes of such a refusal.
THROUGH_RUN = (
    "mask missing",
    "image cut in half",
    "half transparent",
    "antialiased mask",
    "the same picture twice",
)


@pytest.mark.parametrize("case", [*THROUGH_RUN, *MORE_FOLDERS])
def test_a_damaged_folder(case: str, place: tuple[Path, Path]) -> None:
    change, words = {**CASES, **MORE_FOLDERS}[case]
    ended = with_folder(place, change)
    assert_refused(ended, place[1])
    assert words in ended.said
    assert any(part in ended.said for part in ("Put these right", "data.root", "dataset.yaml", "at most")), (
        ended.said
    )


@pytest.mark.parametrize("case", READABLE)
def test_a_folder_that_only_looks_odd(case: str, place: tuple[Path, Path]) -> None:
    assert with_folder(place, READABLE[case])[0::2] == (0, 1)


def test_soft_edges_are_read_with_the_threshold_that_the_message_offers(place: tuple[Path, Path]) -> None:
    said = with_folder(place, CASES["antialiased mask"][0]).said
    assert "defect is 255 and the rest 0" in said
    assert "data.mask_threshold=127 takes everything above 127 as defect" in said
    memory.kept.clear()
    assert ending(place[1], "data=folder", f"data.root={place[0]}", "data.mask_threshold=127").status == 0


def test_too_few_images_for_the_shot(place: tuple[Path, Path]) -> None:
    with_folder(place, lambda root: None)
    shutil.rmtree(place[1] / "outputs")
    ended = ending(place[1], "data=folder", f"data.root={place[0]}", "shot=3")
    assert_refused(ended, place[1])
    assert (
        "shot = 3: class a has 3 images, one of which is the query; at most 2 can be supports" in ended.said
    )


def test_a_file_for_a_folder(place: tuple[Path, Path]) -> None:
    for path in (place[0], place[1] / "outputs"):
        shutil.rmtree(path, ignore_errors=True)
    place[0].write_text("data")
    ended = ending(place[1], "data=folder", f"data.root={place[0]}", "shot=1")
    place[0].unlink()
    assert_refused(ended, place[1])
    assert "is not a folder. Give the folder that holds the class folders." in ended.said


# --------------------------------------------------------------------- weights and checkpoints


def no_training(*_: Any, **__: Any) -> Any:
    raise AssertionError("training began")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def tensors(name: str = "vgg16", **changes: Any) -> dict[str, np.ndarray]:
    """ImageNet weights in torchvision's names, of ones."""
    from cpanet.checkpoint.weights import model_tensors
    from cpanet.models import published_network
    from cpanet.models.backbones.vgg import STARTS

    starts = STARTS[False]
    found = {}
    for key, value in model_tensors(published_network(name, width=16).backbone).items():
        stage, index, leaf = key.split(".", 2)
        plain = f"features.{starts[int(stage[-1])] + int(index)}.{leaf}" if name == "vgg16" else key
        found[plain] = np.ones(value.shape, np.float32)
    return {**found, **changes}


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def tensor_file(path: Path, content: dict[str, np.ndarray], keep: float = 1.0) -> None:
    save_file(content, path)
    cut(path, keep)


NAN = {"features.0.weight": np.full((64, 3, 3, 3), np.nan, np.float32)}
SMALL = {"features.0.weight": np.ones((8, 3, 3, 3), np.float32)}
PICKLE = pickle.dumps({"features.0.weight": np.ones(3, np.float32)})

# name of the file, how it is made, what is said
WEIGHTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "not there": ("w.pth", lambda p: None, "w.pth: there is no such file"),
    "a folder": ("w.pth", lambda p: p.mkdir(), "w.pth: there is no such file"),
    "another suffix": ("w.onnx", lambda p: p.write_bytes(b"x"), "weights are read from .safetensors, .pth"),
    "no suffix": ("w", lambda p: p.write_bytes(b"x"), "give it its right name"),
    "empty .safetensors": ("w.safetensors", lambda p: p.touch(), "damaged or not a safetensors file"),
    "text .safetensors": ("w.safetensors", lambda p: p.write_text("x" * 99), "damaged or not a safetensors"),
    "hostile header": (
        "w.safetensors",
        lambda p: p.write_bytes(b"\xff" * 64),
        "damaged or not a safetensors",
    ),
    ".safetensors cut in half": ("w.safetensors", lambda p: tensor_file(p, tensors(), 0.5), "damaged or not"),
    ".safetensors without its end": (
        "w.safetensors",
        lambda p: tensor_file(p, tensors(), 0.999),
        "damaged or not",
    ),
    ".safetensors of nothing": ("w.safetensors", lambda p: tensor_file(p, {}), "missing layer0.0.weight"),
    "empty .pth": ("w.pth", lambda p: p.touch(), "not a readable PyTorch file"),
    "text .pth": ("w.pth", lambda p: p.write_text("x" * 99), "fetch it again"),
    "a web page .pth": ("w.pth", lambda p: p.write_text("<!DOCTYPE html>"), "fetch it again"),
    "code in .pth": ("w.pth", lambda p: p.write_bytes(pickle.dumps(Evil())), ".system"),
    "empty .pkl": ("w.pkl", lambda p: p.touch(), "not a readable Jittor file"),
    "code in .pkl": (
        "w.pkl",
        lambda p: p.write_bytes(pickle.dumps(Evil())),
        "refused, because loading it would call",
    ),
    ".pkl cut in half": ("w.pkl", lambda p: p.write_bytes(PICKLE[: len(PICKLE) // 2]), "fetch it again"),
    ".pkl without tensors": (
        "w.pkl",
        lambda p: p.write_bytes(pickle.dumps({"a": 1})),
        "no tensors in this file",
    ),
    "NaN inside": ("w.safetensors", lambda p: tensor_file(p, tensors(**NAN)), "not finite layer0.0.weight"),
    "misshapen": ("w.safetensors", lambda p: tensor_file(p, tensors(**SMALL)), "misshapen layer0.0.weight"),
    "another backbone": ("w.safetensors", lambda p: tensor_file(p, tensors("resnet50")), "Check backbone"),
    ".pkl that does not fit": ("w.pkl", lambda p: p.write_bytes(PICKLE), "misshapen layer0.0.weight"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_damaged_weights(case: str, place: tuple[Path, Path]) -> None:
    name, make, says = WEIGHTS[case]
    here, path = place[1], place[0].with_name(name)
    shutil.rmtree(here / "outputs", ignore_errors=True)
    make(path)
    try:
        with mock.patch("cpanet.engine.train_epoch", no_training):
            ended = ending(
                here, *(t for t in TINY if "weights" not in t), f"backbone.weights={path}", run=run_here
            )
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert_refused(ended, here)
    assert says in ended.said
    assert name in ended.said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped in its second epoch."""
    cwd, saved = tmp_path_factory.mktemp("trained"), []
    replace = os.replace

    def replacing(source: Any, target: Any) -> None:
        replace(source, target)
        saved.append(Path(target).name)
        if saved[-1] == "last.safetensors" and saved.count("last.safetensors") == 2:
            raise KeyboardInterrupt

    with (
        mock.patch.object(os, "replace", replacing),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        assert run_here(cwd, *TINY, "train.epochs=3", "hydra.run.dir=run") == 130
    return cwd / "run"


def rewritten(change: Callable[[dict[str, np.ndarray], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Both checkpoints of a run with ``change`` done to their tensors and state."""

    def damage(run: Path) -> None:
        for name in ("last", "previous"):
            path = run / "checkpoints" / f"{name}.safetensors"
            content, state = read_checkpoint(path)
            change(content, state)
            write_checkpoint(path, content, state)

    return damage


def both(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        for name in ("last", "previous"):
            path = run / "checkpoints" / f"{name}.safetensors"
            shutil.copyfile(path, path.with_suffix(".own"))  # it was a link
            path.with_suffix(".own").replace(path)
            change(path)

    return damage


def linked(source: str, target: str) -> None:
    """A copy of a run's file; the weights, which are large, as a second name of the same file."""
    (os.link if source.endswith(".safetensors") else shutil.copy2)(source, target)


def yaml_of(name: str, text: str) -> Callable[[Path], Any]:
    return lambda run: (run / ".hydra" / name).write_text(text)


NOTHING_READ = "can be read. Remove that folder to start at the beginning."
A_NAN = np.full(1, np.nan, np.float32)
# change to the run, further overrides, words of the message
RESUMED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...], str]] = {
    "truncated checkpoints": (both(lambda p: cut(p, 0.5)), (), NOTHING_READ),
    "empty checkpoints": (both(lambda p: p.write_bytes(b"")), (), NOTHING_READ),
    "text for checkpoints": (both(lambda p: p.write_text("x" * 999)), (), NOTHING_READ),
    "checkpoints of others": (both(lambda p: tensor_file(p, {"a": np.ones(3)})), (), NOTHING_READ),
    "no state": (both(lambda p: save_file({"a": np.ones(3)}, p, {"format": "cpanet/1"})), (), NOTHING_READ),
    "state of another kind": (rewritten(lambda t, s: s.update(progression=[1])), (), NOTHING_READ),
    "state of another version": (rewritten(lambda t, s: s["progression"].update(phase=1)), (), NOTHING_READ),
    "NaN inside": (
        rewritten(lambda t, s: t["model.refine1.weight"].fill(np.nan)),
        (),
        "not finite refine1.weight",
    ),
    "a tensor less": (rewritten(lambda t, s: t.pop("model.refine1.weight")), (), "missing refine1.weight"),
    "a tensor more": (rewritten(lambda t, s: t.update({"model.x": np.ones(3)})), (), "unexpected x"),
    "misshapen": (
        rewritten(lambda t, s: t.update({"model.refine1.weight": np.ones(3)})),
        (),
        "misshapen refine1.weight",
    ),
    "another architecture": (
        rewritten(lambda t, s: s["config"]["model"].update(width=32)),
        (),
        "belongs to another configuration: model.width = 16 (recorded: 32)",
    ),
    "another backbone": (
        rewritten(lambda t, s: s["config"]["backbone"].update(name="resnet50")),
        (),
        'backbone.name = "vgg16" (recorded: "resnet50")',
    ),
    "other images": (rewritten(lambda t, s: s.update(dataset="0" * 64)), (), "was trained on other images"),
    "a conflicting seed": (lambda run: None, ("seed=1",), "In conflict: seed = 1 (recorded: 0)"),
    "a conflicting group": (lambda run: None, ("ablation=cpp",), "In conflict: ablation"),
    "a conflicting rate": (lambda run: None, ("recipe.optimizer.lr=0.5",), "recipe.optimizer.lr = 0.5"),
    "a misspelt key": (lambda run: None, ("sed=1",), "Did you mean 'seed'?"),
    "no record": (lambda run: shutil.rmtree(run / ".hydra"), (), "not the directory of a run"),
    "a record of another kind": (yaml_of("config.yaml", "[1]"), (), "config.yaml is no configuration"),
    "a record that is no YAML": (yaml_of("config.yaml", "{"), (), "cannot be read"),
    "a record that asks for a resolver": (
        yaml_of("config.yaml", "a: ${oc.env:HOME}"),
        (),
        "asks for a resolver",
    ),
    "a record that builds objects": (
        yaml_of("config.yaml", "a: !!python/object/apply:os.system ['touch ran']"),
        (),
        "cannot be read",
    ),
    "a record of nowhere": (yaml_of("config.yaml", "a: ${b}"), (), "not the directory of a run"),
    "overrides of another kind": (yaml_of("overrides.yaml", "a: 1"), (), "overrides.yaml is no list"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_cannot_go_on(case: str, trained: Path, tmp_path: Path) -> None:
    damage, typed, says = RESUMED[case]
    run = shutil.copytree(trained, tmp_path / "run", copy_function=linked)
    damage(run)
    before = contents(run)
    with mock.patch("cpanet.engine.train_epoch", no_training):
        ended = ending(tmp_path, f"resume={run}", *typed, run=run_here)
    assert ended.status == 2
    assert ended.said.startswith("error: ")
    assert "Traceback" not in ended.said
    assert says in ended.said
    assert contents(run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def contents(run: Path) -> dict[Path, tuple[int, int, int]]:
    """Which files a run has, and when they were written, but its log, its lock and Hydra's notes on the last command."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    files = [path for path in files if path.suffix != ".log" and ".hydra" not in path.parts]
    return {
        path: (found.st_ino, found.st_mtime_ns, found.st_size) for path in files if (found := path.stat())
    }


# --------------------------------------------------------------------- in a process of its own

PROCESSES = {
    "seed=one": 'error: seed = "one": must be a valid integer\n',
    "loss.kk=1": "Did you mean 'loss.k'?",
    "data=folder data.root=data": "a/Images/a_1.jpg: unreadable file: is empty (0 bytes)",
    "data=embedded backbone.weights=w.pkl": "w.pkl: refused, because loading it would call posix.system",
    "data=embedded train.batch_size=900 backbone.weights=random": "train.batch_size=900: fold 0 has 200 training images",
    "resume=data": "resume=data: not the directory of a run",
}


IN_PROCESS = (
    "loss.kk=1",
    "data=folder data.root=data",
    "resume=data",
)  # as above: a test each in this process


@pytest.mark.parametrize(
    "typed", [pytest.param(t, marks=[pytest.mark.slow] if t in IN_PROCESS else []) for t in PROCESSES]
)
def test_as_typed(typed: str, tmp_path: Path) -> None:
    (write_folder(tmp_path / "data") / IMAGE).write_bytes(b"")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Evil()))
    before = sorted(tmp_path.rglob("*"))
    ended = run_process(tmp_path, *typed.split(), "device=cpu", "profile=tiny", OMP_NUM_THREADS="1")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert PROCESSES[typed] in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert sorted(tmp_path.rglob("*")) == before


# --------------------------------------------------------------------- whatever else

NAMES_OF_KEYS = [key.name for key in KEYS]
VALUES = st.one_of(
    st.integers().map(str),
    st.floats(allow_subnormal=False).map(str),  # Jittor has the processor flush them to zero
    st.sampled_from(
        ["null", "true", "''", "???", "${seed}", "${x}", "[1,2]", "{a:1}", "1,2", "range(3)", "a b", "∞", "="]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)
OVERRIDES = st.builds(
    "{}{}={}".format,
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.sampled_from(NAMES_OF_KEYS) | st.text(max_size=8),
    VALUES,
)


def check_configuration(base: Path, typed: list[str]) -> None:
    here = Path(os.path.join(base, "here"))
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    with mock.patch("cpanet.tasks.train.read_images"):
        ended = ending(here, "data=embedded", *typed)
    if ended.status == 0:
        assert ended.jobs == 1 or any("hydra" in text or "--" in text for text in typed)
    else:
        assert_refused(ended, here)


def check_image(place: tuple[Path, Path], name: str, content: bytes) -> None:
    ended = with_folder(place, lambda root: (root / name).write_bytes(content))
    if ended.status == 0:
        assert ended.jobs == 1
    else:
        assert_refused(ended, place[1])
        assert "/a_1." in ended.said  # it, or its other half of another size


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        changed[at] ^= data.draw(st.integers(1, 255))
    return (
        bytes(changed[: data.draw(st.integers(0, len(whole)))])
        if data.draw(st.booleans())
        else bytes(changed)
    )


QUIETLY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=12, deadline=None, suppress_health_check=QUIETLY)
@given(typed=st.lists(OVERRIDES, min_size=1, max_size=3))
def test_any_configuration_ends_in_a_run_or_in_one_message(tmp_path: Path, typed: list[str]) -> None:
    check_configuration(tmp_path, typed)


@settings(max_examples=20, deadline=None, suppress_health_check=QUIETLY)
@given(data=st.data(), name=st.sampled_from([IMAGE, MASK]))
def test_any_image_ends_in_a_run_or_in_one_message(
    place: tuple[Path, Path], data: st.DataObject, name: str
) -> None:
    root = write_folder(place[0].with_name("whole"))
    check_image(place, name, damaged(data, (root / name).read_bytes()))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=QUIETLY)
@given(typed=st.lists(OVERRIDES, min_size=1, max_size=4))
def test_any_of_many_configurations(tmp_path: Path, typed: list[str]) -> None:
    check_configuration(tmp_path, typed)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=QUIETLY)
@given(data=st.data(), name=st.sampled_from([IMAGE, MASK]))
def test_any_of_many_images(place: tuple[Path, Path], data: st.DataObject, name: str) -> None:
    root = write_folder(place[0].with_name("whole"))
    check_image(place, name, damaged(data, (root / name).read_bytes()))
