"""The report page as text: complete, self-contained, and inert whatever the files say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from cpanet.report.charts import nice_ticks
from cpanet.report.page import duration, page, pieces
from cpanet.report.summary import Summary
from tests.report import sweeps
from tests.report.synthetic import ablation, write_csv, write_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


class Elements(HTMLParser):
    """Tags with their attributes, and that they are nested as HTML wants it."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "path"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open, tag
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The page of two rows which have everything."""
    top = sweeps.modules(tmp_path_factory.mktemp("plain") / "s", ("cpp", "full"), pictures=True)
    sweeps.multirun(top, "ablation=cpp,full", "seed=0,1", "data.root=/my data")
    return page(Summary([top]))


def test_the_page_has_everything(plain):
    text, elements = plain, Elements(plain)
    assert not elements.open
    for section in ("table", "curves", "episodes", "classes", "runs", "origin"):
        assert any(attributes.get("id") == section for attributes in elements.of("section"))
    assert "python run.py -m ablation=cpp,full seed=0,1 &#39;data.root=/my data&#39;" in text
    assert "python run.py ablation=cpp seed=1" in text
    assert "1.3.11.0" in text
    assert "812 MB" in text
    assert "1 min 02 s" in text
    assert len(elements.of("img")) == 4 * (3 + 2)
    assert len([a for a in elements.of("g") if a["class"].startswith("curve")]) == 2 * 2


def test_it_needs_nothing_from_outside(plain):
    found = Elements(plain).found
    addresses = [value for _, attrs in found for key, value in attrs.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not Elements(plain).of("link")
    assert "url(" not in plain
    assert "@import" not in plain
    assert len(plain) < 1_000_000


def test_what_comes_from_files_is_text(plain, tmp_path):
    top = sweeps.modules(tmp_path / "s", ("cpp", "full"), title=EVIL, pictures=True)
    sweeps.multirun(top, f"ablation='{EVIL}'")
    changes = {"ablation": {**ablation("full"), "name": EVIL}, "backbone.name": EVIL, "data.name": EVIL}
    facts = {"device": EVIL, "versions": {EVIL: EVIL}, "git_commit": EVIL, "status": "failed", "reason": EVIL}
    run = write_run(top / "evil", 0.5, changes, [EVIL], pictures=True, **facts)
    write_csv(run / "metrics.csv", [{"epoch": 1, "loss_main": 0.5, "miou": 0.5, EVIL: 1.0}])
    done = write_run(top / "done", 0.5, {**changes, "seed": 5}, [EVIL], pictures=True, device=EVIL)
    record = json.loads((done / "result.json").read_text())
    for which in ("best", "last"):
        record[which]["class_iou"] = {EVIL: record[which]["miou"]}
    (done / "result.json").write_text(json.dumps(record))
    (done / "episodes.csv").unlink()
    index = done / "figures" / "episodes" / "index.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps([{**entry, "caption": EVIL} for entry in entries]))
    text = page(Summary([top]))
    elements = Elements(text)
    assert "alert(1)" in text
    assert "&lt;img src=x" in text
    assert not any("onerror" in attrs or attrs.get("src") == "x" for _, attrs in elements.found)
    assert len(elements.of("script")) == len(Elements(plain).of("script"))
    assert "49" not in re.findall(r"\{\{.*?\}\}|&\{\{(.*?)", text)


def test_pictures_are_drawn_anew(tmp_path):
    top = sweeps.modules(tmp_path / "s", ("cpp", "full"), pictures=True)
    folder = top / "ablation=cpp,seed=0" / "figures" / "episodes"
    (folder / "01_prediction.png").write_bytes(b"<svg onload=alert(1)>")
    Image.new("L", (3000, 3000)).save(folder / "02_prediction.png")
    Image.new("L", (10, 10)).save(folder / "03_prediction.png")
    (top / "ablation=full,seed=0" / "figures" / "episodes" / "04_prediction.png").unlink()
    text = page(Summary([top]))
    sources = [attributes["src"] for attributes in Elements(text).of("img")]
    assert text.count("no picture") == 4
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 128


@pytest.mark.parametrize("index", ["", "{", "[1]", "[{}]", '{"a": 1}', "[" * 10_000])
def test_a_damaged_index_of_pictures_leaves_them_out(tmp_path, index):
    top = sweeps.modules(tmp_path / "s", ("cpp", "full"), seeds=(0,), pictures=True)
    (top / "ablation=cpp,seed=0" / "figures" / "episodes" / "index.json").write_text(index)
    found = [a for a in Elements(page(Summary([top]))).of("th") if "data-row" in a]
    assert [attributes["data-row"] for attributes in found] == ["1"]


def test_rows_with_other_classes_have_tables_of_their_own(tmp_path):
    text = page(Summary([sweeps.folds(tmp_path / "s", seeds=(0,))]))
    assert text.count("<caption>Best epoch</caption>") == 3
    assert "Steel_Am2" in text


def test_no_runs_make_a_page_too(tmp_path):
    assert not Elements(page(Summary([tmp_path]))).open


def test_the_script_is_the_one_that_the_policy_allows(plain):
    script = plain.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in plain


def test_pieces_of_a_cell():
    assert pieces("−2.51* [−4.17, −0.84]") == [("", "−2.51*"), ("ci", " [−4.17, −0.84]")]
    assert pieces("38.01 ± 1.59 (3)*") == [("", "38.01"), ("sd", " ± 1.59"), ("n", " (3)"), ("", "*")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5 s"), (93.4, "1 min 33 s"), (7384, "2 h 03 min"), (None, "")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2, 0.75), (-14.4, 4.6), (0, 0), (-0.001, 1e6), (0, 1e-11)]
)
def test_ticks_enclose_the_values(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(set(ticks)) <= 9
    assert ticks[0] <= low + 1e-6 * (high - low)
    assert ticks[-1] >= high - 1e-6 * (high - low)
