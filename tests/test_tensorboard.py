"""TensorBoard on two runs side by side, as its own pages ask for them, and in a real browser."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from tensorboard import default, program

from cpanet.records import pictures
from cpanet.tasks.train import run
from tests.hydra_app import compose
from tests.report import browser as browsers

TINY = ("profile=tiny", "data=embedded", "device=cpu", "backbone.weights=random", "data.workers=0")
RUNS = {
    "seed=3": ("train.epochs=2", "fold=1", "seed=3"),
    "ablation=cpp,shot=2": ("ablation=cpp", "fold=1", "loss.k=0.2", "shot=2", "seed=4", "log.overlays=2"),
}

# all words on a page, those within web components too
WORDS = """[...function* walk(node) {
    if (node.nodeType === Node.TEXT_NODE) yield node.data;
    for (const child of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) yield* walk(child);
}(document)].join(' ')"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Directory of the two finished runs."""
    outputs = tmp_path_factory.mktemp("outputs")
    for name, overrides in RUNS.items():
        run(compose(*TINY, *overrides), outputs / name)
    return outputs


@pytest.fixture(scope="module")
def address(results):
    """TensorBoard's address, while it serves them."""
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(argv=["tensorboard", "--logdir", str(results), "--port", "0", "--load_fast", "false"])
    found = server.launch()
    deadline = time.monotonic() + 60
    while len(ask(found, "runs")) < len(RUNS) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def ask(address, what, body=None, **query):
    url = f"{address}data/{what}?{urllib.parse.urlencode(query)}"
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def curve(address, tag, run="seed=3"):
    return ask(address, "plugin/scalars/scalars", run=run, tag=tag)


def test_runs_are_named_by_what_was_overridden(address):
    assert set(ask(address, "runs")) == set(RUNS)


def test_scalars_are_few_and_in_three_groups(address):
    tags = ask(address, "plugin/scalars/tags")["seed=3"]
    trained = ("loss", "loss_main", "loss_auxiliary", "learning_rate", "step_seconds")
    tested = {f"test/{name}{of}" for name in ("mIoU", "FB-IoU") for of in ("", "_best", "_baseline")}
    found = {tag for tag in tags if not tag.startswith("test_class/")}
    assert found == {f"train/{name}" for name in trained} | tested
    assert sum(tag.startswith("test_class/") for tag in tags) == 4
    after = [0, 2, 4]  # the untrained network first
    for tag, steps in (("train/loss", [0, 1, 2, 3]), ("test/mIoU", after), ("test_class/blister", after)):
        assert [step for _, step, _ in curve(address, tag)] == steps


def test_untrained_network_and_baseline_are_curves(address, results):
    result = json.loads((results / "seed=3" / "result.json").read_text())
    assert curve(address, "test/mIoU")[0][2] == pytest.approx(result["untrained"]["miou"], abs=1e-6)
    for tag, key in (("mIoU", "miou"), ("FB-IoU", "fb_iou")):
        points = curve(address, f"test/{tag}_baseline")
        assert [step for _, step, _ in points] == [0, 2, 4]
        assert [value for _, _, value in points] == pytest.approx(3 * [result["floor"][key]], abs=1e-6)


def test_pictures_name_their_episode_and_keep_it_over_time(address):
    tags = ask(address, "plugin/images/tags")
    assert len(tags["seed=3"]) == 4
    assert len(tags["ablation=cpp,shot=2"]) == 2
    for tag in tags["seed=3"]:
        assert re.fullmatch(r"episodes/[1-4]/(\w+)/\1_\d+\.png", tag)
        shown = ask(address, "plugin/images/images", run="seed=3", tag=tag, sample=0)
        assert [picture["step"] for picture in shown] == [2, 4]


def test_hparams_compare_what_was_set_with_what_came_out(address, results):
    experiment = ask(address, "plugin/hparams/experiment", {"experimentName": ""})
    columns = [info["name"] for info in experiment["hparamInfos"]]
    assert {"backbone", "ablation", "k", "fold", "shot", "seed", "data", "recipe", "protocol"} <= set(columns)
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics == ["test/mIoU", "test/FB-IoU", "test/mIoU_best", "test/FB-IoU_best"]
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"hparam": name, "includeInResult": True} for name in columns],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = ask(address, "plugin/hparams/session_groups", request)["sessionGroups"]
    table = {group["name"]: group for group in groups}
    assert set(table) == set(RUNS)
    set_there = {"ablation": "cpp", "k": 0.2, "shot": 2.0, "seed": 4.0}
    assert set_there.items() <= table["ablation=cpp,shot=2"]["hparams"].items()
    for name, group in table.items():
        result = json.loads((results / name / "result.json").read_text())
        values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        assert set(values) == set(metrics)  # no empty cell
        assert set(group["hparams"]) == set(columns)
        for key, tag in (("miou", "test/mIoU"), ("fb_iou", "test/FB-IoU")):
            assert values[tag] == pytest.approx(result["last"][key], abs=1e-6)
            assert values[f"{tag}_best"] == pytest.approx(result["best"][key], abs=1e-6)


@pytest.mark.parametrize("width", [200, 40])
def test_the_caption_has_room(width):
    image = np.full((200, width, 3), 90, np.uint8)
    mask = np.zeros((200, width), bool)
    mask[50:100, 10:30] = True
    figure = pictures.EpisodeFigure(image, mask, image, mask, mask, "patch: 1.png")
    strip, captioned = pictures.strip(figure), pictures.captioned_strip(figure)
    above = len(captioned) - len(strip)
    np.testing.assert_array_equal(captioned[above:, : strip.shape[1]], strip)
    dark = np.argwhere(captioned[:above].max(axis=2) < 128)
    assert dark[:, 1].max() < captioned.shape[1] - 2  # the last letter is whole
    assert dark[:, 0].max() < above


@pytest.mark.slow
def test_the_pages_in_a_browser(address, tmp_path):
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium, or set CHROMIUM)")
    wanted = {
        "scalars": ("seed=3", "ablation=cpp,shot=2", "test/mIoU", "test/FB-IoU", "train"),
        "images": ("episodes/1/", "episodes/2/"),
        "hparams": ("ablation", "shot", "seed", "test/mIoU", "test/FB-IoU"),
    }
    with browsers.Browser(program, tmp_path) as browser:
        browser.size(1600, 1000)
        for tab, words in wanted.items():
            browser.call("Page.navigate", url=f"{address}#{tab}")
            deadline = time.monotonic() + 60
            while missing := [word for word in words if word not in browser.evaluate(WORDS)]:
                assert time.monotonic() < deadline, (tab, missing)
                time.sleep(0.5)
