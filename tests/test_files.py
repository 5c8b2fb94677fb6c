"""Atomic writing, and checks of output paths."""

from __future__ import annotations

import os
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


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{f'*{old}, ' * 9}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", LAUGHS, "more than 100,000 values"),
        ("a.yaml", "a: &a [*a]", "nested in itself"),
        ("a.yaml", "a: " + "[" * 2000, "nested too deeply"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"a": ' + "[" * 200 + "]" * 200 + "}", "nested in itself or more than 100 times"),
        ("a.yaml", "a: 1\na: 2", "the name 'a' is repeated"),
        ("a.yaml", "s: {rank: 1, rank: 2}", "the name 'rank' is repeated"),
        ("a.json", '{"a": 1, "a": 2}', "the name 'a' is repeated"),
        ("a.yaml", "a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a.yaml", "#" * 1_000_001, "has 1,000,001 bytes"),
        ("a.yaml", "a: " + "9" * 5000, "is not valid"),
        ("a.yaml", "- 1", "must contain one"),
        ("a.yaml", "", "must contain one"),
    ],
    ids=lambda value: value[:20],
)
def test_a_mapping_that_is_huge_repeated_or_invalid_is_refused(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ActshiftError, match=problem):
        read_mapping(tmp_path / name, "config file")


def test_a_mapping_may_have_a_byte_order_mark_and_merge_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("\ufeffa: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}")
    assert read_mapping(tmp_path / "a.yaml", "config file")["b"] == {"x": 2, "y": 1}


def test_a_pipe_is_no_mapping(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ActshiftError, match="is not a file"):
        read_mapping(tmp_path / "a.yaml", "config file")
