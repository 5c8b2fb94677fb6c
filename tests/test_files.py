from __future__ import annotations

from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.files import check_writable, write_whole


def test_what_was_there_stays_if_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    write_whole(target, "first")
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "second \ud800")  # a lone surrogate cannot be written
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_to_is_told_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.txt")
    with pytest.raises(ActshiftError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(ActshiftError, match=r"There is no folder .*missing to write new\.txt"):
        check_writable(tmp_path / "missing" / "new.txt")
