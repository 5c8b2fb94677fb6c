"""Atomic writing, and checks of output paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.files import check_new_folder, check_writable, read_mapping, write_atomically


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    write_atomically(target, "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "second \ud800")  # a lone surrogate cannot be encoded
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_path_that_cannot_be_written_is_rejected_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.txt")
    with pytest.raises(ActshiftError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(ActshiftError, match=r"There is no folder .*missing to write new\.txt"):
        check_writable(tmp_path / "missing" / "new.txt")


def test_a_folder_with_content_is_rejected_as_a_new_folder(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "missing")
    check_new_folder(tmp_path)
    (tmp_path / "note.txt").touch()
    for path in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(ActshiftError, match=r"exists and is not empty\. Give a new or empty folder"):
            check_new_folder(path)


def test_mappings_are_read_from_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rank: 2\n1: x\n")
    (tmp_path / "a.json").write_text('{"rank": 2}')
    assert read_mapping(tmp_path / "a.yaml", "config file") == {"rank": 2, "1": "x"}
    assert read_mapping(tmp_path / "a.json", "config file") == {"rank": 2}
