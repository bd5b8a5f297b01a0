"""The parts behind the page of ``task=explore``: uploads, masks, maps, archives, episodes, the session, the command."""

from __future__ import annotations

import io
import socket
import zipfile
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from cpanet.errors import UserError
from cpanet.explore import arrays
from cpanet.explore.session import (
    MOST_QUERIES,
    QueryPicture,
    RecordedEpisode,
    Session,
    Support,
    episodes_file,
    read_episodes,
)
from cpanet.tasks.explore import free_port, title
from tests.datasets import save, tiny_dataset
from tests.hydra_app import compose, run_process

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
MASK = np.zeros((40, 48), bool)
MASK[10:20, 5:30] = True


def test_a_loaded_mask_is_seen_in_the_picture_and_lies_on_no_layer():
    value = arrays.to_editor(PICTURE, MASK)
    assert value["layers"] == []
    np.testing.assert_array_equal(value["background"][~MASK], PICTURE[~MASK])
    redder = value["background"][MASK].astype(int) - PICTURE[MASK]
    assert redder[:, 0].mean() > 50 > 0 > redder[:, 2].mean()
    assert not arrays.painted(value, PICTURE.shape).any()


def test_every_layer_is_painted_and_soft_rims_are_not():
    layers = np.zeros((2, 40, 48, 4), np.uint8)
    layers[0, :5] = arrays.PAINT
    layers[1, 35:] = arrays.PAINT
    layers[1, 34, :, 3] = 20
    mask = arrays.painted({"background": None, "layers": list(layers)}, PICTURE.shape)
    assert np.flatnonzero(mask.any(axis=1)).tolist() == [0, 1, 2, 3, 4, 35, 36, 37, 38, 39]


def test_strokes_on_a_canvas_of_another_size_lie_where_they_were_painted():
    layer = np.zeros((80, 96, 4), np.uint8)
    layer[20:40, 10:60] = arrays.PAINT
    np.testing.assert_array_equal(arrays.painted({"layers": [layer]}, PICTURE.shape), MASK)


@pytest.mark.parametrize("value", [None, {}, {"background": None}, {"layers": []}, {"layers": None}])
def test_an_empty_editor_has_nothing_painted(value):
    assert not arrays.painted(value, (8, 8, 3)).any()


def test_uploaded_pictures_are_read_whatever_their_kind(tmp_path):
    np.testing.assert_array_equal(arrays.read_picture(save(tmp_path / "a.png", PICTURE)), PICTURE)
    assert arrays.read_picture(save(tmp_path / "b.JPG", PICTURE[..., 0])).shape == PICTURE.shape


def test_what_is_no_picture_is_refused_with_its_name(tmp_path):
    (tmp_path / "script.png").write_text("<svg onload=alert(1)>")
    (tmp_path / "page.html").write_bytes(save(tmp_path / "p.png", PICTURE).read_bytes())
    save(tmp_path / "small.png", PICTURE[:4])
    for name in ("script.png", "page.html", "small.png"):
        with pytest.raises(UserError, match=name):
            arrays.read_picture(tmp_path / name)


def test_a_mask_is_that_of_its_picture(tmp_path):
    path = save(tmp_path / "m.png", MASK.astype(np.uint8) * 255)
    np.testing.assert_array_equal(arrays.read_mask(path, MASK.shape), MASK)
    with pytest.raises(UserError, match=r"48×40, the support 40×48"):
        arrays.read_mask(path, (48, 40))
    with pytest.raises(UserError, match="no defect pixel"):
        arrays.read_mask(save(tmp_path / "n.png", np.zeros((40, 48), np.uint8)), MASK.shape)


def test_maps_keep_their_order():
    values = np.linspace(0, 1, 5)[None].repeat(8, axis=0).astype(np.float32)
    assert arrays.grey(values)[0].tolist() == [0, 64, 128, 191, 255]
    brightness = arrays.coloured(values - 7)[0].astype(int).sum(axis=1)
    assert (np.diff(brightness) > 0).all()
    assert arrays.coloured(np.zeros((4, 4), np.float32)).shape == (4, 4, 3)


def test_an_archive_holds_mask_and_probability_of_every_picture():
    probability = MASK * np.float32(0.75)
    data = arrays.archive([("x/Images/a.jpg", MASK, probability), ("y/Images/a.png", ~MASK, probability)])
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
        read = {n: cv2.imdecode(np.frombuffer(file.read(n), np.uint8), cv2.IMREAD_UNCHANGED) for n in names}
    assert sorted(names) == ["a.png", "a_2.png", "probability/a.png", "probability/a_2.png"]
    np.testing.assert_array_equal(read["a.png"], MASK * np.uint8(255))
    np.testing.assert_array_equal(read["a_2.png"], ~MASK * np.uint8(255))
    assert read["probability/a.png"].dtype == np.uint16
    assert read["probability/a.png"].max() == round(0.75 * 65535)


EPISODES = """which,epoch,class,query,supports,inter_fg,union_fg,inter_bg,union_bg
best,2,a,a/Images/1.png,a/Images/2.png,5,10,1,1
best,2,a,a/Images/2.png,a/Images/1.png;a/Images/3.png,1,10,1,1
best,2,b,b/Images/1.png,b/Images/2.png,0,0,1,1
last,4,a,a/Images/1.png,a/Images/2.png,9,10,1,1
"""


def test_episodes_of_a_run_are_sorted_worst_first(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "episodes.csv").write_text(EPISODES)
    for checkpoint in (tmp_path, tmp_path / "checkpoints" / "best.safetensors"):
        assert episodes_file(checkpoint) == tmp_path / "episodes.csv"
    records = read_episodes(tmp_path / "episodes.csv")
    assert [r.iou for r in records["best"]] == [0.0, 0.1, 0.5]
    assert [r.query for r in records["best"]] == ["b/Images/1.png", "a/Images/2.png", "a/Images/1.png"]
    assert records["best"][1].supports == ("a/Images/1.png", "a/Images/3.png")
    assert len(records["last"]) == 1
    assert episodes_file(None) is episodes_file(tmp_path / "x" / "y" / "z.pth") is None
    (tmp_path / "episodes.csv").write_text("which,query\nbest,a\n")
    with pytest.raises(UserError, match=r"episodes\.csv cannot be read"):
        read_episodes(tmp_path / "episodes.csv")


class Echo:
    """In a network's place: a query is as defective as it is bright, if there were supports."""

    def fit(self, images, masks):
        if any(mask.all() for mask in masks):
            raise ValueError("mask 0 marks everything")
        self.supports = len(images)
        return self

    def predict_proba(self, images):
        return [image[..., 0].astype(np.float32) / 255 for image in images]

    def evaluated(self, images, masks, image):
        return self.fit(images, masks).predict_proba([image])[0] > 0.5

    def similarity(self, images):
        return [np.full(image.shape[:2], self.supports, np.float32) for image in images]


def test_a_session_predicts_from_the_supports_that_have_a_mask():
    session = Session(Echo(), None)
    supports = [Support(PICTURE, MASK), Support(PICTURE, ~MASK), Support(PICTURE, MASK & False)]
    (result,) = session.segment(supports, [QueryPicture("q", PICTURE, MASK)])
    assert result.similarity[0, 0] == 2
    np.testing.assert_array_equal(result.mask(0.5), PICTURE[..., 0] > 127)
    assert result.mask(0.9).sum() < result.mask(0.1).sum()
    assert "IoU" in result.sentence(0.5)
    assert result.overlay(0.5).shape == PICTURE.shape
    assert session.segment([supports[2]], [QueryPicture("q", PICTURE)]) == []
    assert session.segment(supports, []) == []
    with pytest.raises(UserError, match="marks everything"):
        session.segment([Support(PICTURE, MASK | True)], [QueryPicture("q", PICTURE)])
    with pytest.raises(UserError, match="task=predict takes any number"):
        session.segment(supports, [QueryPicture("q", PICTURE)] * (MOST_QUERIES + 1))
    with pytest.raises(UserError, match="not in the data set, which was not found"):
        session.query("x")


def test_an_episodes_iou_is_one_number_or_has_a_reason():
    dataset = tiny_dataset()
    session = Session(Echo(), dataset, 0, epoch="best")
    record = RecordedEpisode(0.0, "class_0", dataset.names[0], (dataset.names[1],))
    mask, iou = session.repeat(record)
    assert 0 < iou < 1
    assert mask.shape == dataset.masks[0].shape
    assert session.compared("best", record._replace(iou=iou), iou) == f"IoU {iou:.3f}, here as in the record"
    assert "the record is of the last epoch, the page has" in session.compared("last", record, iou)
    assert f"0.000 in the record, {iou:.3f} here: the data set" in session.compared("best", record, iou)


def test_pictures_of_sixteen_bits_are_read_by_a_common_range(tmp_path):
    save(tmp_path / "a.png", PICTURE[..., 0].astype(np.uint16) * 10)
    own = arrays.read_picture(tmp_path / "a.png")
    common = arrays.read_picture(tmp_path / "a.png", (0.0, 5100.0))
    assert own.max() == 255
    assert common.max() == pytest.approx(PICTURE[..., 0].max() / 2, abs=1)


@contextmanager
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_is_taken_is_refused_and_none_is_asked_for_finds_one():
    with taken_port() as port, pytest.raises(UserError, match=f"port={port}: Address already in use"):
        free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert 7860 <= free_port("127.0.0.1", None) < 7960


def test_the_page_is_this_machines_alone_unless_said_otherwise():
    config = compose("task=explore", "method=prototype", "data=embedded")
    assert config.explore.host == "127.0.0.1"
    assert config.explore.max_upload_mb == 20
    assert title(config) == "Prototype comparison without training, vgg16_bn"


def test_a_page_that_cannot_start_says_why_and_leaves_nothing(tmp_path):
    page = ("task=explore", "method=prototype", "data=embedded", "device=cpu", "backbone.weights=random")
    with taken_port() as port:
        done = run_process(tmp_path, *page, f"explore.port={port}", TMPDIR=str(tmp_path))
    assert done.returncode == 2, done.stderr
    known = ("Address already in use", "pip install -e '.[explore]'", "needs Python 3.10")
    assert any(words in done.stderr for words in known), done.stderr
    assert list(tmp_path.iterdir()) == []
