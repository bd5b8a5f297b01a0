"""The embedded set: the same bytes everywhere, whole or not at all, and what its pictures must be like."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpanet.data import load_dataset, synthetic
from cpanet.data.__main__ import main
from cpanet.data.dataset import DefectDataset
from cpanet.errors import UserError
from cpanet.runtime import user_cache
from tests.shared import REPO


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache) -> DefectDataset:
    return load_dataset("embedded", cache=cache, min_images=6)


def test_it_is_the_same_on_every_machine(dataset):
    assert dataset.fingerprint == synthetic.FINGERPRINT
    assert dataset.notes == []


def test_it_has_three_folds_of_four_classes(dataset):
    assert len(dataset) == 12 * synthetic.PER_CLASS
    assert [len(fold) for fold in dataset.folds] == [4, 4, 4]
    assert {image.shape for image in dataset.images} == {(200, 200, 3)}


def test_defects_are_large_enough_to_be_learnt_from_and_small_enough_to_be_found(dataset):
    shares = np.array([mask.mean() for mask in dataset.masks])
    assert shares.min() >= 0.04
    assert shares.max() <= 0.40


def test_defects_stand_in_different_places(dataset):
    # The best guess that knows the class and nothing of the picture: where its defects often are.
    for index in range(len(dataset.classes)):
        masks = np.stack([dataset.masks[i] for i in dataset.indices_of(index)]).astype(bool)
        guesses = [masks.mean(axis=0) >= level for level in (0.2, 0.3, 0.4, 0.5)]
        best = max((masks & guess).sum() / (masks | guess).sum() for guess in guesses)
        assert best < 0.35, dataset.classes[index]


def test_brightness_alone_does_not_give_a_defect_away(dataset):
    # One threshold for all, relative to each image's median: dark, bright, or both.
    scores = []
    for level in (20, 30, 40):
        counts = np.zeros((3, 2))
        for image, mask in zip(dataset.images, dataset.masks):
            grey = image[..., 0].astype(int) - np.median(image[..., 0])
            for row, guess in enumerate((grey < -level, grey > level, np.abs(grey) > level)):
                counts[row] += (guess & (mask == 1)).sum(), (guess | (mask == 1)).sum()
        scores += list(counts[:, 0] / counts[:, 1])
    assert max(scores) < 0.45


def test_it_is_drawn_once(dataset, cache, monkeypatch):
    monkeypatch.setattr(synthetic, "write", lambda *_: pytest.fail("drawn again"))
    assert load_dataset("embedded", cache=cache).fingerprint == dataset.fingerprint


def test_a_damaged_copy_is_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "PER_CLASS", 2)
    first = load_dataset("embedded", cache=tmp_path)
    assert first.notes == ["the embedded set comes out differently here than on other machines"]
    monkeypatch.setattr(synthetic, "FINGERPRINT", first.fingerprint)
    (first.root / "patch/Images/patch_2.png").write_bytes(b"")
    again = load_dataset("embedded", cache=tmp_path)
    assert again.fingerprint == first.fingerprint
    assert again.notes == []
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.root.name]  # nothing left lying about


def test_two_processes_at_once_both_find_it_whole(tmp_path):
    code = (
        "import sys; from pathlib import Path; from cpanet.data import catalog, synthetic;"
        "synthetic.PER_CLASS = 3; root = synthetic.ensure(Path(sys.argv[1]));"
        "contents = catalog.examine(catalog.EMBEDDED, root, catalog.MaskRule());"
        "print(len(contents.images), len(contents.problems), contents.fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO) for _ in range(2)]
    first, second = (p.communicate(timeout=120)[0] for p in started)
    assert first == second
    assert first.startswith("36 0 ")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_cache_is_the_users(tmp_path):
    assert user_cache({"XDG_CACHE_HOME": str(tmp_path / "x"), "HOME": str(tmp_path)}) == tmp_path / "x/cpanet"
    assert user_cache({"HOME": str(tmp_path)}) == tmp_path / ".cache/cpanet"
    assert user_cache({"HOME": "/proc/nowhere"}).is_relative_to(tempfile.gettempdir())


def test_a_cache_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        synthetic.ensure(tmp_path / "file")


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("shape", [(8, 8), (13, 21), (300, 400)])
def test_the_png_that_is_written_is_a_png(bits, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if bits == 1:
        image = (image > 127).astype(np.uint8)
    read = np.array(Image.open(io.BytesIO(synthetic.png(image, bits))).convert("L"))
    assert np.array_equal(read, image * 255 if bits == 1 else image)


def test_embed_writes_it_to_a_new_folder_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "PER_CLASS", 2)
    assert main(["embed", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/patch/GT/patch_2.png").is_file()
    assert main(["embed", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
