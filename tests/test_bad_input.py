"""Whatever is wrong with what a user gives: one message that names the thing and the remedy, status 2, nothing left.

Every case goes through ``run.py``'s own entry point; a few of them in a process of their own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import pickle
import shutil
import tempfile
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
GROUPS = ("task", "device", "fold", "shot", "profile")  # groups too: refused as options, one at a time
PLAIN = [key for key in KEYS if key.name not in GROUPS]


def wrong(key: Key) -> tuple[str, str]:
    """A value of another type, and how a message shows it."""
    if typing.get_origin(key.kind) is Literal or key.kind is str:
        return "3", "3"
    return "much", '"much"'


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

OUT_OF_RANGE += [
    (key.name, "zzz", "must be one of ") for key in PLAIN if typing.get_origin(key.kind) is Literal
]

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
    ("recipe.optimizer._target_=cpanet.recipe.Adam", "._target_ = cpanet.recipe.Adam: there is no"),
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


@functools.cache
def lines(kind: str) -> list[str]:
    """The messages of every key at once, by kind of mistake: that is one command a kind, not one a key."""
    if kind == "type":
        rounds = [{key.name: wrong(key)[0] for key in PLAIN}]
    elif kind == "spelling":
        rounds = [{misspelt(key.name): "1" for key in KEYS}]
    else:
        rounds = [{}, {}, {}]  # for up to three bad values of a key
        for key, value, _ in OUT_OF_RANGE:
            next(chosen for chosen in rounds if key not in chosen)[key] = value
    with tempfile.TemporaryDirectory() as cwd:
        return [line for chosen in rounds for line in together(chosen, Path(cwd))]


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_a_key_of_a_wrong_type(key: Key) -> None:
    value = wrong(key)[1]
    (line,) = [line for line in lines("type") if line.startswith(f"{key.name} = ")]
    assert line.startswith(f"{key.name} = {value}: must be "), line


@pytest.mark.parametrize("key", [key for key in KEYS if key.name not in SECTIONS], ids=lambda key: key.name)
def test_a_misspelt_key_brings_the_nearest(key: Key) -> None:
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
def test_a_key_out_of_range(key: str, value: str, says: str) -> None:
    about = [line for line in lines("range") if line.startswith(f"{key} = ")]
    assert any(says in line for line in about), about


def test_every_key_with_a_range_is_in_the_table() -> None:
    free = {"data.root", "data.mask_values", *SECTIONS}
    assert {key.name for key in PLAIN if key.kind is not bool} - {key for key, _, _ in OUT_OF_RANGE} <= free


@pytest.mark.parametrize(("typed", "says"), ALONE, ids=[typed for typed, _ in ALONE])
def test_a_mistake_by_itself(typed: str, says: str, cwd: Path) -> None:
    ended = ending(cwd, *typed.split())
    assert_refused(ended, cwd)
    assert says in ended.said


@pytest.mark.slow
@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_each_key_of_a_wrong_type_alone(key: Key, cwd: Path) -> None:
    assert_refused(ending(cwd, f"{key.name}={wrong(key)[0]}"), cwd)


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
        lambda r: [(r / "a").rename(r / "deep"), *(shutil.rmtree(r / name) for name in "bc")],
        "Check data.root",
    ),
    "a mask named as its image is, in capitals": (
        lambda r: (r / MASK).rename(r / "a/GT/A_1.PNG"),
        "a_1.jpg: missing mask",
    ),
}

DATASET_YAML = {
    "[1, 2": "dataset.yaml cannot be read as YAML",
    "name: !!python/object/apply:os.system ['touch ran']": "dataset.yaml cannot be read as YAML",
    "class: [a, b]": "unknown key 'class'. Known are name, classes, folds, mask_threshold, mask_values",
    "mask_threshold: 255": "mask_threshold must be a whole number from 0 to 254",
    "classes: [a, ../b]": "classes must be a list of different class folders",
    "folds: [[a], [x]]": "fold 1 names x",
    "folds: [[a, b, c]]": "leaves none to train on",
}


def with_dataset_yaml(text: str) -> Callable[[Path], Any]:
    return lambda root: (root / "dataset.yaml").write_text(text)


MORE_FOLDERS.update({text: (with_dataset_yaml(text), says) for text, says in DATASET_YAML.items()})


def more(name: str, image: np.ndarray | None = None) -> Callable[[Path], Any]:
    """One more picture of class a, damaged where there is no ``image``."""

    def add(root: Path) -> None:
        save(root / f"a/GT/{name}.png", picture(7)[1] * 255)
        path = root / f"a/Images/{name}.jpg"
        path.touch() if image is None else save(path, image)

    return add


MORE_FOLDERS.update(
    {name: (more(name), f"a/Images/{name}.jpg: unreadable file: is empty") for name in ("钢", "x" * 240)}
)


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
        *((r / n).touch() for n in ("a/Images/Thumbs.db", "README.txt")),
        (r / "Nd").mkdir(),
    ],
    **{name: more(name, picture(7)[0]) for name in ("x" * 240, "钢板 1", "[bold]$x^2$<b>")},
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
    remedies = ("Put these right", "data.root", "dataset.yaml", "at most")
    assert any(part in ended.said for part in remedies), ended.said


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

EVIL = pickle.dumps(Evil())


def tensors_of(keep: float = 1.0, name: str = "vgg16", **changes: np.ndarray) -> Callable[[Path], None]:
    return lambda path: tensor_file(path, tensors(name, **changes), keep)


# what is wrong: name of the file, what it holds or how it is made, what is said
WEIGHTS: dict[str, tuple[str, bytes | Callable[[Path], Any], str]] = {
    "not there": ("w.pth", lambda p: None, "w.pth: there is no such file"),
    "a folder": ("w.pth", lambda p: p.mkdir(), "w.pth: there is no such file"),
    "another suffix": ("w.onnx", b"x", "weights are read from .safetensors, .pth"),
    "no suffix": ("w", b"x", "give it its right name"),
    "empty .safetensors": ("w.safetensors", b"", "damaged or not a safetensors file"),
    "text .safetensors": ("w.safetensors", b"x" * 99, "damaged or not a safetensors"),
    "hostile header": ("w.safetensors", b"\xff" * 64, "damaged or not a safetensors"),
    ".safetensors cut in half": ("w.safetensors", tensors_of(0.5), "damaged or not"),
    ".safetensors without its end": ("w.safetensors", tensors_of(0.999), "damaged or not"),
    ".safetensors of nothing": ("w.safetensors", lambda p: tensor_file(p, {}), "missing layer0.0.weight"),
    "empty .pth": ("w.pth", b"", "not a readable PyTorch file"),
    "text .pth": ("w.pth", b"x" * 99, "fetch it again"),
    "a web page .pth": ("w.pth", b"<!DOCTYPE html>", "fetch it again"),
    "code in .pth": ("w.pth", EVIL, ".system"),
    "empty .pkl": ("w.pkl", b"", "not a readable Jittor file"),
    "code in .pkl": ("w.pkl", EVIL, "refused, because loading it would call"),
    ".pkl cut in half": ("w.pkl", PICKLE[: len(PICKLE) // 2], "fetch it again"),
    ".pkl without tensors": ("w.pkl", pickle.dumps({"a": 1}), "no tensors in this file"),
    "NaN inside": ("w.safetensors", tensors_of(**NAN), "not finite layer0.0.weight"),
    "misshapen": ("w.safetensors", tensors_of(**SMALL), "misshapen layer0.0.weight"),
    "another backbone": ("w.safetensors", tensors_of(name="resnet50"), "Check backbone"),
    ".pkl that does not fit": ("w.pkl", PICKLE, "misshapen layer0.0.weight"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_damaged_weights(case: str, cwd: Path) -> None:
    name, made, says = WEIGHTS[case]
    path = cwd.with_name(name)
    path.write_bytes(made) if isinstance(made, bytes) else made(path)
    typed = [word for word in TINY if "weights" not in word]
    with mock.patch("cpanet.engine.train_epoch", no_training):
        ended = ending(cwd, *typed, f"backbone.weights={path}", run=run_here)
    assert_refused(ended, cwd)
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


def each(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    """``change`` done to both checkpoints of a run."""

    def damage(run: Path) -> None:
        for name in ("last", "previous"):
            path = run / "checkpoints" / f"{name}.safetensors"
            shutil.copyfile(path, path.with_suffix(".own"))  # it was a link
            path.with_suffix(".own").replace(path)
            change(path)

    return damage


def rewritten(change: Callable[[dict[str, np.ndarray], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The same, done to their tensors and state."""

    def rewrite(path: Path) -> None:
        content, state = read_checkpoint(path)
        change(content, state)
        write_checkpoint(path, content, state)

    return each(rewrite)


def of_model(name: str, value: np.ndarray) -> Callable[[Path], None]:
    return rewritten(lambda tensors, state: tensors.update({f"model.{name}": value}))


def linked(source: str, target: str) -> None:
    """A copy of a run's file; the weights, which are large, as a second name of the same file."""
    (os.link if source.endswith(".safetensors") else shutil.copy2)(source, target)


def yaml_of(name: str, text: str) -> Callable[[Path], Any]:
    return lambda run: (run / ".hydra" / name).write_text(text)


NOTHING_READ = "can be read. Remove that folder to start at the beginning."
BUILDS = "a: !!python/object/apply:os.system ['touch ran']"
SMALLER = "belongs to another configuration: model.width = 16 (recorded: 32)"
# what is wrong: a change to the run or further words of the command, and words of the message
RESUMED: dict[str, tuple[Callable[[Path], Any] | str, str]] = {
    "truncated checkpoints": (each(lambda p: cut(p, 0.5)), NOTHING_READ),
    "empty checkpoints": (each(lambda p: p.write_bytes(b"")), NOTHING_READ),
    "text for checkpoints": (each(lambda p: p.write_text("x" * 999)), NOTHING_READ),
    "checkpoints of others": (each(lambda p: tensor_file(p, {"a": np.ones(3)})), NOTHING_READ),
    "no state": (each(lambda p: save_file({"a": np.ones(3)}, p, {"format": "cpanet/1"})), NOTHING_READ),
    "state of another kind": (rewritten(lambda t, s: s.update(progression=[1])), NOTHING_READ),
    "state of another version": (rewritten(lambda t, s: s["progression"].update(phase=1)), NOTHING_READ),
    "NaN inside": (
        rewritten(lambda t, s: t["model.refine1.weight"].fill(np.nan)),
        "not finite refine1.weight",
    ),
    "a tensor less": (rewritten(lambda t, s: t.pop("model.refine1.weight")), "missing refine1.weight"),
    "a tensor more": (of_model("x", np.ones(3)), "unexpected x"),
    "misshapen": (of_model("refine1.weight", np.ones(3)), "misshapen refine1.weight"),
    "another architecture": (rewritten(lambda t, s: s["config"]["model"].update(width=32)), SMALLER),
    "another backbone": (
        rewritten(lambda t, s: s["config"]["backbone"].update(name="resnet50")),
        'backbone.name = "vgg16" (recorded: "resnet50")',
    ),
    "other images": (rewritten(lambda t, s: s.update(dataset="0" * 64)), "was trained on other images"),
    "a conflicting seed": ("seed=1", "In conflict: seed = 1 (recorded: 0)"),
    "a conflicting group": ("ablation=cpp", "In conflict: ablation"),
    "a conflicting rate": ("recipe.optimizer.lr=0.5", "recipe.optimizer.lr = 0.5"),
    "a misspelt key": ("sed=1", "Did you mean 'seed'?"),
    "no record": (lambda run: shutil.rmtree(run / ".hydra"), "not the directory of a run"),
    "a record of another kind": (yaml_of("config.yaml", "[1]"), "config.yaml is no configuration"),
    "a record that is no YAML": (yaml_of("config.yaml", "{"), "cannot be read"),
    "a record that asks for a resolver": (yaml_of("config.yaml", "a: ${oc.env:HOME}"), "asks for a resolver"),
    "a record that builds objects": (yaml_of("config.yaml", BUILDS), "cannot be read"),
    "a record of nowhere": (yaml_of("config.yaml", "a: ${b}"), "not the directory of a run"),
    "overrides of another kind": (yaml_of("overrides.yaml", "a: 1"), "overrides.yaml is no list"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_cannot_go_on(case: str, trained: Path, tmp_path: Path) -> None:
    change, says = RESUMED[case]
    run = shutil.copytree(trained, tmp_path / "run", copy_function=linked)
    typed = [change] if isinstance(change, str) else []
    if not isinstance(change, str):
        change(run)
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
    stats = {path: path.stat() for path in files}
    return {path: (found.st_ino, found.st_mtime_ns, found.st_size) for path, found in stats.items()}


# --------------------------------------------------------------------- in a process of its own

PROCESSES = {
    "seed=one": 'error: seed = "one": must be a valid integer\n',
    "data=embedded backbone.weights=w.pkl": "w.pkl: refused, because loading it would call posix.system",
    "data=embedded train.batch_size=900 backbone.weights=random": "train.batch_size=900: fold 0 has 200 training images",
    "loss.kk=1": "Did you mean 'loss.k'?",
    "data=folder data.root=data": "a/Images/a_1.jpg: unreadable file: is empty (0 bytes)",
    "resume=data": "resume=data: not the directory of a run",
}
SLOW = [
    pytest.param(typed, marks=pytest.mark.slow) for typed in list(PROCESSES)[3:]
]  # as above, in this process


@pytest.mark.parametrize("typed", [*list(PROCESSES)[:3], *SLOW])
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


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        changed[at] ^= data.draw(st.integers(1, 255))
    return bytes(changed[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])


def with_examples(check: Any, number: int, **given_: Any) -> None:
    quietly = settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    quietly(given(**given_)(check))()


@pytest.mark.parametrize("examples", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_any_configuration_ends_in_a_run_or_in_one_message(tmp_path: Path, examples: int) -> None:
    def check(typed: list[str]) -> None:
        here = Path(tempfile.mkdtemp(dir=tmp_path))
        with mock.patch("cpanet.tasks.train.read_images"):
            ended = ending(here, "data=embedded", *typed)
        if ended.status == 0:
            assert ended.jobs == 1 or any("hydra" in text or "--" in text for text in typed)
        else:
            assert_refused(ended, here)

    with_examples(check, examples, typed=st.lists(OVERRIDES, min_size=1, max_size=4))


@pytest.mark.parametrize("examples", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_any_image_ends_in_a_run_or_in_one_message(place: tuple[Path, Path], examples: int) -> None:
    whole = write_folder(place[0].with_name("whole"))

    def check(data: st.DataObject, name: str) -> None:
        content = damaged(data, (whole / name).read_bytes())
        ended = with_folder(place, lambda root: (root / name).write_bytes(content))
        if ended.status == 0:
            assert ended.jobs == 1
        else:
            assert_refused(ended, place[1])
            assert "/a_1." in ended.said  # it, or its other half of another size

    with_examples(check, examples, data=st.data(), name=st.sampled_from([IMAGE, MASK]))
