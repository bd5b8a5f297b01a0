from __future__ import annotations

import pytest
import yaml

from cpanet.errors import UserError
from cpanet.report import table_spec


def example() -> dict:
    """The example of the module's documentation."""
    text = table_spec.__doc__.split("An example::")[1].split("Keys are")[0]
    return yaml.safe_load(text)


def test_the_documented_example_survives_a_round_trip(tmp_path):
    parsed = table_spec.parse(example(), "example")
    (tmp_path / table_spec.FILE).write_text(table_spec.dump(parsed), encoding="utf-8")
    assert table_spec.read(tmp_path) == parsed
    assert parsed.published[0].values[0].miou == 42.30
    assert parsed.reference == {"ablation": "full", "loss.k": 0.4}


def test_no_specification_is_none(tmp_path):
    assert table_spec.read(tmp_path) is None


@pytest.mark.parametrize("text", ["name: x\n", "name: x\ntitle: y\nrow: [a]\n", "{", "[]", "\0"])
def test_a_damaged_specification_is_named(tmp_path, text):
    (tmp_path / table_spec.FILE).write_text(text)
    with pytest.raises(UserError, match=r"sweep\.yaml"):
        table_spec.read(tmp_path)
