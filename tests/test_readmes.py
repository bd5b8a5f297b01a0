"""README.md and README.zh-CN.md say the same: the same commands, numbers, files and headings, in the same order."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE = (
    (REPO / name).read_text(encoding="utf-8").split("\n", 3)[3] for name in ("README.md", "README.zh-CN.md")
)
BLOCK = re.compile(r"^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Lines of the code blocks, without comments."""
    lines = "\n".join(BLOCK.findall(text)).splitlines()
    return [re.sub(r"\s+#.*$", "", line) for line in lines]


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def code(text: str) -> Counter:
    return Counter(re.findall(r"`([^`]+)`", prose(text)))


def numbers(text: str) -> Counter:
    return Counter(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)*", re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose(text))))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", text)


@pytest.mark.parametrize("part", [commands, code, numbers, links], ids=lambda part: part.__name__)
def test_both_readmes_have_the_same(part):
    assert part(ENGLISH) == part(CHINESE)


def test_both_readmes_have_the_same_sections_and_tables():
    for mark in (r"^(#+) ", r"^\|", r"^- \*\*"):
        count = [len(re.findall(mark, text, re.MULTILINE)) for text in (ENGLISH, CHINESE)]
        assert count[0] == count[1], mark


def test_a_number_that_differs_is_seen():
    assert numbers("mIoU **0.403**, 37 s, 1,000") != numbers("mIoU **0.430**，37 s，1,000")
