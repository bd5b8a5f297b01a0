from __future__ import annotations

import pytest
import yaml

from cpanet.errors import UserError
from cpanet.report import layout


def example() -> dict:
    """The example of the module's documentation."""
    text = layout.__doc__.split("An example::")[1].split("Keys are")[0]
    return yaml.safe_load(text)


def test_the_documented_example_survives_a_round_trip(tmp_path):
    parsed = layout.parse(example(), "example")
    (tmp_path / layout.FILE).write_text(layout.dump(parsed), encoding="utf-8")
    assert layout.read(tmp_path) == parsed
    assert parsed.published[0].values[0].miou == 42.30
    assert parsed.reference == {"ablation": "full", "loss.k": 0.4}


def test_no_layout_is_none(tmp_path):
    assert layout.read(tmp_path) is None


@pytest.mark.parametrize("text", ["name: x\n", "name: x\ntitle: y\nrow: [a]\n", "{", "[]", "\0"])
def test_a_damaged_layout_is_named(tmp_path, text):
    (tmp_path / layout.FILE).write_text(text)
    with pytest.raises(UserError, match=r"sweep\.yaml"):
        layout.read(tmp_path)
