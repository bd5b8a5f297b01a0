"""Files that are whole at every moment: written beside their place and moved there, or not there at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cpanet.files import CannotWrite, replacing, write_atomically


def test_a_file_takes_the_place_of_the_old_one_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("old")
    write_atomically(path, b"new", 0o755)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o755
    assert [file.name for file in tmp_path.iterdir()] == ["script"]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "link"
    for target in ("one", "two"):
        with replacing(link) as temporary:
            temporary.symlink_to(target)
    assert link.readlink() == Path("two")


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(errno.ENOSPC, "No space left"), CannotWrite), (KeyError("x"), KeyError)]
)
def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: Exception, raised: type[Exception]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(raised):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="nowhere/file cannot be written"):
        write_atomically(tmp_path / "nowhere" / "file", b"")
