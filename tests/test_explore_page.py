"""The page of ``task=explore``: what each of its parts answers, and all of it in a real browser."""

from __future__ import annotations

import contextlib
import io
import json
import os
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

from cpanet.explore.episodes import Record
from cpanet.explore.session import Session
from cpanet.runtime.page import import_gradio
from tests.datasets import tiny_dataset
from tests.hydra_app import REPO, compose
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
    records = {"best": [Record(0.25, "class_0", dataset.names[0], supports)]}
    return Answers(Session(Echo(), dataset, 0, records), tmp_path / "masks")


def test_support_query_threshold_and_file(answers):
    name = answers.session.pictures("class_0")[0][1]
    editor, _ = answers.take("class_0", "support", None, [], Click(0))
    _, chosen = answers.take("class_0", "query", None, [], Click(1))
    assert chosen == [answers.session.dataset.names[1]]
    assert answers.take("class_0", "query", None, chosen, Click(1))[1] == []
    results, selected, text, overlays, mask, probability, similarity, download = answers.segment(
        editor, [], None, chosen, 0.5
    )
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
    assert "Missing: a support." in answers.segment(None, [], None, [], 0.5)[2]
    editor, _ = answers.take("class_0", "support", None, [], Click(0))
    assert "Missing: a query." in answers.segment(editor, [], None, [], 0.5)[2]
    bare = {**editor, "layers": []}
    assert "painted defect" in answers.segment(bare, [], None, [], 0.5)[2]
    with pytest.raises(Exception, match="without a mask says nothing"):
        answers.keep(bare, [])


def test_kept_supports_count(answers):
    editor, _ = answers.take("class_0", "support", None, [], Click(0))
    emptied, kept, text, _ = answers.keep(editor, [])
    assert emptied is None
    assert text.startswith("1 kept")
    query = answers.session.dataset.names[3]
    (result,) = answers.segment(editor, kept, None, [query], 0.5)[0]
    assert result.similarity[0, 0] == 2
    assert answers.forget()[0] == []


def test_an_episode_is_taken_over(answers):
    (picture, caption) = answers.rows("best")[0]
    assert caption == "0.25 class_0_1"
    assert picture.shape == (40, 40, 3)
    text, panel, editor, kept, _, chosen = answers.episode("best", 0.5, Click(0))
    assert "IoU 0.250 in the record" in text
    assert panel.shape[2] == 3
    assert editor["layers"]
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
        pointer = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **pointer)
        for dx, dy in steps:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx, y=y + dy, buttons=1, **pointer)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **pointer)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")


def write_run(directory):
    """As a finished run leaves it, of a network that was never trained: nothing is compiled but what the page needs."""
    from cpanet import data
    from cpanet.checkpoint import model_tensors, write_checkpoint
    from cpanet.checkpoint.weights import MODEL_PREFIX
    from cpanet.models import CPANet

    config = compose("profile=tiny", "data=embedded", "device=cpu", "backbone.weights=random")
    model = CPANet(config.backbone.name, width=config.model.width)
    tensors = {MODEL_PREFIX + name: tensor for name, tensor in model_tensors(model).items()}
    (directory / "checkpoints").mkdir(parents=True)
    write_checkpoint(directory / "checkpoints" / "best.safetensors", tensors, {"config": config.model_dump()})
    dataset = data.load_dataset("embedded")
    lines = ["which,epoch,class,query,supports,inter_fg,union_fg,inter_bg,union_bg"]
    for episode in data.test_episodes(dataset, config.fold, config.shot, 0, 4):
        names = dataset.classes[episode.class_index], dataset.names[episode.query]
        lines.append(f"best,1,{','.join(names)},{dataset.names[episode.supports[0]]},0,100,0,100")
    (directory / "episodes.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of the page of a small finished run, its process, and the folders it may and may not write to."""
    outputs, temporary, here = (tmp_path_factory.mktemp(name) for name in ("run", "temporary", "here"))
    write_run(outputs / "tiny")
    # whoever started this in the background has children that ignore Ctrl-C
    heeding = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[:1] = []; "
    command = [sys.executable, "-c", f"{heeding}runpy.run_path(sys.argv[0], run_name='__main__')"]
    command += [str(REPO / "run.py"), "task=explore", f"checkpoint={outputs / 'tiny'}"]
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
    for name, picture in (("support", dataset.images[0]), ("query", dataset.images[1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    cv2.imwrite(str(tmp_path / "mask.png"), dataset.masks[0] * 255)
    (tmp_path / "downloads").mkdir()
    with Visitor(program, tmp_path / "profile") as visitor:
        visitor.size(1300, 2000)
        visitor.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        visitor.call("Page.navigate", url=address)
        visitor.until("document.querySelector('#support input[type=file]')")
        visitor.until("document.querySelector('#episodes img')")
        visitor.choose("#queries input[type=file]", tmp_path / "query.png")
        visitor.until("document.querySelector('#queries').innerText.includes('.png')")
        visitor.until("document.querySelector('#support canvas')")
        missing = "document.querySelector('#status').innerText.includes('a support with a painted defect')"
        for _ in range(5):  # a picture that comes before the editor has drawn itself is lost
            time.sleep(5)
            visitor.choose("#support input[type=file]", tmp_path / "support.png")
            with contextlib.suppress(AssertionError):
                visitor.until(missing, 40)
                break
        visitor.until(missing, 1)
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
