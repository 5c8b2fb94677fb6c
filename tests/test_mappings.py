"""YAML and JSON files of one mapping are read strictly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.mappings import read_mapping


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
