"""The page in a real browser: no error, every picture loads, rows come and go, values under the pointer."""

from __future__ import annotations

import json
import shutil

import pytest

from cpanet.report.write import write_report
from tests.report import browser as browsers
from tests.report import sweeps

pytestmark = pytest.mark.slow

VISIBLE = "[...document.querySelectorAll({})].filter(e => e.getClientRects().length).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium, or set CHROMIUM)")
    with browsers.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    top = sweeps.modules(tmp_path_factory.mktemp("report") / "s", pictures=True)
    shutil.rmtree(top / "ablation=none,seed=1")
    write_report([top], top)
    return top / "report.html"


@pytest.fixture(params=["laptop", "phone", "dark"])
def opened(browser, report, request):
    browser.errors.clear()
    width, height = (390, 844) if request.param == "phone" else (1280, 800)
    browser.size(width, height, dark=request.param == "dark", phone=request.param == "phone")
    browser.open(report)
    return browser


def visible(opened, selector):
    return opened.evaluate(VISIBLE.format(json.dumps(selector)))


def click(opened, selector):
    opened.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def test_no_error_and_every_picture_loads(opened):
    assert opened.evaluate("document.images.length") == 4 * (3 + 8)
    assert opened.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert opened.errors == []


def test_the_page_is_no_wider_than_the_screen(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_toggling_a_row(opened):
    assert visible(opened, ".curve") == 16
    click(opened, "[data-toggle='2']")
    assert visible(opened, ".curve") == 14
    assert visible(opened, ".gallery [data-row='2']") == 0
    assert visible(opened, ".gallery [data-row='3']") > 0
    assert (
        opened.evaluate("document.querySelector(\"[data-toggle='2']\").getAttribute('aria-pressed')")
        == "false"
    )
    click(opened, "[data-toggle='2']")
    assert visible(opened, ".curve") == 16
    click(opened, "[data-all='false']")
    assert visible(opened, ".curve") == 0
    click(opened, "[data-all='true']")
    assert visible(opened, ".curve") == 16
    assert opened.errors == []


def test_best_and_last_epoch_are_shown_apart(opened):
    assert visible(opened, "#table [data-which='best']") == 1
    assert visible(opened, "#table [data-which='last']") == 0
    click(opened, "[data-show='last']")
    assert visible(opened, "#table [data-which='best']") == 0
    assert visible(opened, "#table [data-which='last']") == 1
    assert visible(opened, "#classes [data-which='last']") == 1


def test_values_under_the_pointer(opened):
    opened.evaluate("document.querySelector('.canvas').scrollIntoView({block: 'center'})")
    box = opened.evaluate(
        "(() => { const r = document.querySelector('.canvas svg').getBoundingClientRect(); "
        "return [r.x, r.y, r.width, r.height]; })()"
    )
    click(opened, "[data-toggle='1']")
    opened.move(box[0] + 0.9 * box[2], box[1] + 0.5 * box[3])
    tip = opened.evaluate("document.querySelector('.canvas .tip').innerText")
    assert tip.startswith("epoch 18")
    assert "CPP + SA + SSA" in tip
    assert len([line for line in tip.splitlines() if line.startswith("0.")]) == 7
    assert opened.errors == []


def test_it_prints_both_epochs(browser, report):
    browser.size(1280, 800)
    browser.open(report)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert visible(browser, "#table [data-which]") == 2
        assert visible(browser, ".bar") == 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_without_script_everything_is_there(browser, report):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.size(1280, 800)
        browser.open(report)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert visible(browser, "#table [data-which]") == 2
    assert visible(browser, ".curve") == 16
