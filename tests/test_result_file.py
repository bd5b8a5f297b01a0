"""``result.json``: what is written is read again, and whatever else lies there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpanet.files import CannotWrite
from cpanet.records.result_file import FILE, DamagedResult, read_result, write_result


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    record = {"status": "completed", "reason": None, "warnings": ["钢 → ☂"], "wall_seconds": 1.5}
    write_result(tmp_path, record)
    assert read_result(tmp_path) == record
    assert "钢" in (tmp_path / FILE).read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not JSON"), (b"[1, 2]", "not a record"), (b"\xff\xfe", "not text"), (b"[" * 100_000, "not JSON")],
)
def test_a_damaged_record_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DamagedResult, match=f"{FILE}: damaged, {says}"):
        read_result(tmp_path)


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=FILE):
        write_result(tmp_path / "gone", {"status": "failed"})
    assert not (tmp_path / "gone").exists()
