"""The page of ``task=explore``: what each of its parts answers, and all of it in a real browser."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from cpanet.explore.session import RecordedEpisode, Session
from cpanet.runtime.gradio_import import import_gradio
from cpanet.tasks.explore import free_port
from tests.checkpoints import trained_run
from tests.datasets import picture, tiny_dataset
from tests.hydra_app import REPO
from tests.report import browser as browsers
from tests.test_explore import Echo

pytest.importorskip("gradio", minversion="6", reason="the page needs gradio (pip install -e '.[explore]')")


class Click:
    """As Gradio tells of one."""

    def __init__(self, index: int) -> None:
        self.index = index


@pytest.fixture
def answers(tmp_path):
    import_gradio(tmp_path)
    from cpanet.explore.page import Answers

    dataset = tiny_dataset()
    supports = tuple(dataset.names[1:3])
    records = {"best": [RecordedEpisode(0.25, "class_0", dataset.names[0], supports)]}
    return Answers(Session(Echo(), dataset, 0, records), tmp_path / "masks")


def test_support_query_threshold_and_file(answers):
    name = answers.session.pictures("class_0")[0][1]
    editor, support, _ = answers.take("class_0", "support", [], Click(0))
    *_, chosen = answers.take("class_0", "query", [], Click(1))
    assert chosen == [answers.session.dataset.names[1]]
    assert answers.take("class_0", "query", chosen, Click(1))[-1] == []
    found = answers.segment(editor, support, [], None, chosen, 0.5)
    results, selected, text, overlays, mask, probability, similarity, download = found
    assert (len(results), selected, len(overlays)) == (1, 0, 1)
    assert chosen[0] in text
    assert mask.shape == probability.shape == similarity.shape[:2] == (40, 40)
    with zipfile.ZipFile(
        download.value["path"] if isinstance(download.value, dict) else download.value
    ) as file:
        saved = cv2.imdecode(np.frombuffer(file.read(f"{Path(chosen[0]).stem}.png"), np.uint8), -1)
    np.testing.assert_array_equal(saved, mask)
    lower = answers.view(results, 0, 0.1)[1 + 1]
    assert np.count_nonzero(lower) > np.count_nonzero(mask)
    assert name != chosen[0]


def test_what_is_missing_is_said(answers):
    assert "Missing: a support." in answers.segment(None, None, [], None, [], 0.5)[2]
    editor, support, _ = answers.take("class_0", "support", [], Click(0))
    assert "Missing: a query." in answers.segment(editor, support, [], None, [], 0.5)[2]
    editor, bare = answers.take_mask_away(support)
    assert "painted defect" in answers.segment(editor, bare, [], None, [], 0.5)[2]
    with pytest.raises(Exception, match="without a mask says nothing"):
        answers.keep(editor, bare, [])
    with pytest.raises(Exception, match="There is no support yet"):
        answers.load_mask(None, "mask.png")


def test_a_stroke_adds_to_a_loaded_mask(answers):
    editor, support, _ = answers.take("class_0", "support", [], Click(0))
    before = np.count_nonzero(support.mask)
    layer = np.zeros((40, 40, 4), np.uint8)
    layer[:3] = (235, 60, 60, 153)
    stroked = {**editor, "layers": [layer]}
    _, _, (kept,), _ = answers.keep(stroked, support, [])
    np.testing.assert_array_equal(kept.mask, support.mask | (layer[..., 3] > 0))
    np.testing.assert_array_equal(kept.picture, support.picture)
    assert answers.describe_mask(editor, support).startswith(f"{before:,} of 1,600 pixels")
    assert answers.describe_mask(stroked, support).startswith(f"{np.count_nonzero(kept.mask):,} of")


def test_a_support_and_its_mask_come_from_files(answers, tmp_path):
    picture = np.random.default_rng(0).integers(100, 9000, (40, 50), dtype=np.uint16)
    mask = np.zeros((40, 50), np.uint8)
    mask[5:9, 5:9] = 255
    deep, masked, half = (str(tmp_path / name) for name in ("deep.png", "mask.png", "half.png"))
    cv2.imwrite(deep, picture)
    cv2.imwrite(masked, mask)
    editor, support, emptied, value_range = answers.open_support(deep, None)
    assert emptied is None
    assert value_range == (picture.min(), picture.max())
    assert support.picture.shape == editor["background"].shape == (40, 50, 3)
    editor, support, _ = answers.load_mask(support, masked)
    np.testing.assert_array_equal(support.mask, mask == 255)
    # the queries take the support's range
    cv2.imwrite(half, np.full((40, 50), 4500, np.uint16))
    (result,) = answers.segment(editor, support, [], [half], [], 0.5, value_range)[0]
    assert result.query.picture[0, 0].tolist() == pytest.approx([126] * 3, abs=2)


def test_kept_supports_count(answers):
    editor, support, _ = answers.take("class_0", "support", [], Click(0))
    emptied, none, kept, text = answers.keep(editor, support, [])
    assert emptied is none is None
    assert text.startswith("1 kept")
    query = answers.session.dataset.names[3]
    (result,) = answers.segment(editor, support, kept, None, [query], 0.5)[0]
    assert result.similarity[0, 0] == 2
    assert answers.forget()[0] == []


def test_an_episode_is_taken_over(answers):
    (picture, caption) = answers.rows("best")[0]
    assert caption == "0.25 class_0_1"
    assert picture.shape == (40, 40, 3)
    text, panel, editor, support, kept, _, chosen = answers.episode("best", Click(0))
    assert "IoU 0.250 in the record" in text
    assert panel.shape[2] == 3
    assert support.mask.any()
    assert editor["background"].shape == support.picture.shape
    assert len(kept) == 1
    assert chosen == [answers.session.dataset.names[0]]


class Visitor(browsers.Browser):
    """A browser that remembers what the page asked for."""

    def __init__(self, *arguments) -> None:
        self.requests: list[str] = []
        super().__init__(*arguments)

    def _listen(self, event, details):
        if event == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        super()._listen(event, details)

    def until(self, expression, seconds=120):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"!!({expression})"):
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)

    def choose(self, selector, *paths):
        """Files into a file field."""
        document = self.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drag(self, selector, *steps):
        """The pointer, pressed, from the middle of an element along ``steps`` (pixels)."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y, w, h = self.evaluate(f"(r => [r.x, r.y, r.width, r.height])({box})")
        x, y = x + w / 2, y + h / 2
        mouse = functools.partial(self.call, "Input.dispatchMouseEvent", button="left", clickCount=1)
        mouse(type="mousePressed", x=x, y=y)
        for dx, dy in steps:
            mouse(type="mouseMoved", x=x + dx, y=y + dy, buttons=1)
        mouse(type="mouseReleased", x=x, y=y)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")


@pytest.fixture
def painted_page(tmp_path):
    """Address of a page with one recorded episode of pictures 240×160, without a network; and its answers."""
    import_gradio(tmp_path / "uploads")
    from cpanet.explore import page as pages

    dataset = tiny_dataset()
    drawn = [picture(i, 160, 240) for i in range(len(dataset.names))]
    dataset = dataclasses.replace(
        dataset, images=[np.repeat(p[..., :1], 3, axis=2) for p, _ in drawn], masks=[m for _, m in drawn]
    )
    records = {"best": [RecordedEpisode(0.25, "class_0", dataset.names[0], (dataset.names[1],))]}
    session = Session(Echo(), dataset, 0, records, "best")
    app = pages.build_page(session, tmp_path / "masks", "test")
    yield pages.launch(app, "127.0.0.1", free_port("127.0.0.1", None), 1, False), dataset
    app.close(verbose=False)


CANVAS = "document.querySelector('#support canvas')"


def marked(visitor) -> int:
    """Pixels of the support that the page counts as defect."""
    found = re.match(r"([\d,]+) of", visitor.text("#mask-text"))
    return int(found[1].replace(",", "")) if found else -1


def within(file: Path, box: list[float]) -> np.ndarray:
    """The part of a screenshot within ``box`` (x, y, width, height)."""
    x, y, width, height = (round(n) for n in box)
    return cv2.imread(str(file))[y : y + height, x : x + width].astype(int)


def red_pixels(file: Path, box: list[float]) -> np.ndarray:
    """Where a screenshot is tinted in the paint's colour, bool, within ``box``."""
    shown = within(file, box)
    return (shown[..., 2] - shown[..., 1] > 40) & (shown[..., 2] - shown[..., 0] > 40)


@pytest.mark.slow
def test_one_stroke_adds_to_a_loaded_mask_and_discards_nothing(painted_page, tmp_path):
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium, or set CHROMIUM)")
    address, dataset = painted_page
    mask = dataset.masks[1] == 1
    with Visitor(program, tmp_path / "profile") as visitor:
        visitor.size(1300, 2400)
        visitor.call("Page.navigate", url=address)
        visitor.until("document.querySelector('#episodes img')")
        visitor.until(CANVAS)
        visitor.evaluate("document.querySelector('#episodes img').closest('button').click()")
        visitor.until("document.querySelector('#mask-text').innerText.includes('marked as defect')")
        assert marked(visitor) == np.count_nonzero(mask)
        time.sleep(3)  # the canvas draws itself
        box = visitor.evaluate(f"(r => [r.x, r.y, r.width, r.height])({CANVAS}.getBoundingClientRect())")
        visitor.picture(tmp_path / "before.png")
        before = red_pixels(tmp_path / "before.png", box)
        # the loaded mask is seen, where it lies in the picture
        grey = within(tmp_path / "before.png", box).max(axis=2) < 250
        left, right = np.flatnonzero(grey.mean(axis=0) > 0.4)[[0, -1]]
        top, bottom = np.flatnonzero(grey.mean(axis=1) > 0.4)[[0, -1]]
        seen = cv2.resize(before[top : bottom + 1, left : right + 1].astype(np.uint8), mask.shape[::-1])
        assert np.mean((seen > 0) == mask) > 0.97
        visitor.drag("#support canvas", (10, -20), (20, -40), (30, -60))
        counted = "parseInt(document.querySelector('#mask-text').innerText.replace(/,/g, ''))"
        visitor.until(f"{counted} > {np.count_nonzero(mask)}")
        after = marked(visitor)
        assert np.count_nonzero(mask) < after < np.count_nonzero(mask) + 3000
        visitor.picture(tmp_path / "after.png")
        stroked = red_pixels(tmp_path / "after.png", box)
        assert np.mean(stroked[before]) > 0.98  # nothing of the mask is gone from the screen
        assert np.count_nonzero(stroked & ~before) > 50


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of the page of a small finished run, its process, and the folders it may and may not write to."""
    temporary, here = (tmp_path_factory.mktemp(name) for name in ("temporary", "here"))
    # whoever started this in the background has children that ignore Ctrl-C
    heeding = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[:1] = []; "
    command = [sys.executable, "-c", f"{heeding}runpy.run_path(sys.argv[0], run_name='__main__')"]
    command += [str(REPO / "run.py"), "task=explore", f"checkpoint={trained_run()}"]
    command += ["explore.browser=false", "explore.max_upload_mb=1", "device=cpu"]
    process = subprocess.Popen(
        command,
        cwd=here,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "the page is at" in line:
            break
    else:
        pytest.fail("".join(lines))
    yield line.split()[4].rstrip(","), process, temporary, here
    process.kill()
    process.wait(10)


def upload(address: str, size: int) -> int:
    """HTTP status of the answer to a file of ``size`` bytes."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{address}gradio_api/upload",
        head + bytes(size) + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_from_upload_to_downloaded_mask(page, tmp_path):
    """Also: an episode, a file that is too large, nothing asked of the outside, nothing left behind."""
    address, process, temporary, here = page
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium, or set CHROMIUM)")
    from cpanet import data

    dataset = data.load_dataset("embedded")
    for name, shown in (("support", dataset.images[0]), ("query", dataset.images[1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), shown[..., ::-1])
    cv2.imwrite(str(tmp_path / "mask.png"), dataset.masks[0] * 255)
    (tmp_path / "downloads").mkdir()
    with Visitor(program, tmp_path / "profile") as visitor:
        visitor.size(1300, 2000)
        visitor.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        visitor.call("Page.navigate", url=address)
        visitor.until("document.querySelector('#support-file input[type=file]')")
        visitor.until("document.querySelector('#episodes img')")
        visitor.choose("#queries input[type=file]", tmp_path / "query.png")
        visitor.until("document.querySelector('#queries').innerText.includes('.png')")
        visitor.until("document.querySelector('#support canvas')")
        missing = "document.querySelector('#status').innerText.includes('a support with a painted defect')"
        visitor.choose("#support-file input[type=file]", tmp_path / "support.png")
        visitor.until(missing)
        time.sleep(3)  # the canvas draws itself
        visitor.drag("#support canvas", (10, -20), (20, -40), (30, -60))
        visitor.until("document.querySelector('#status').innerText.includes('query.png')")
        painted = visitor.text("#status")
        visitor.choose("#mask-file input[type=file]", tmp_path / "mask.png")
        visitor.until(f"document.querySelector('#status').innerText != {json.dumps(painted)}")
        visitor.until(
            "[...document.querySelectorAll('#mask img, #probability img, #similarity img')].length == 3"
        )
        visitor.picture(tmp_path / "predicted.png")
        for gallery in ("library", "episodes", "overlays"):  # no picture of a row is out of sight
            assert visitor.evaluate(
                f"(e => e.scrollWidth <= e.clientWidth)(document.querySelector('#{gallery} .grid-wrap'))"
            ), gallery
        visitor.evaluate("document.querySelector('#download').click()")
        deadline = time.monotonic() + 60
        while not (saved := list((tmp_path / "downloads").glob("*.zip"))):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with zipfile.ZipFile(io.BytesIO(saved[0].read_bytes())) as file:
            mask = cv2.imdecode(np.frombuffer(file.read("query.png"), np.uint8), -1)
            assert "probability/query.png" in file.namelist()
        assert mask.shape == (200, 200)
        assert set(np.unique(mask)) <= {0, 255}
        # an episode of the run, worst first
        captions = visitor.evaluate(
            "[...document.querySelectorAll('#episodes img')].map(i => i.alt || i.title)"
        )
        assert len(captions) == 4
        visitor.evaluate("document.querySelector('#episodes img').closest('button').click()")
        visitor.until("document.querySelector('#episode img')")
        visitor.until("document.querySelector('#status').innerText.includes('/Images/')")
        visitor.picture(tmp_path / "episode.png")
        outside = [u for u in visitor.requests if not u.startswith((address, "data:", "blob:", "about:"))]
        assert outside == []
    assert upload(address, 3 * 2**20) == 413
    assert upload(address, 2**10) == 200
    assert list(here.iterdir()) == []
    assert [path.name[:15] for path in temporary.iterdir()] == ["cpanet-explore-"]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert list(temporary.iterdir()) == []
