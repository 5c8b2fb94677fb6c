"""Random rows and bytes: each is read exactly, or refused in one line that names the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actshift import ActshiftError
from actshift.data import LABELLED, LANGUAGE, PREFERENCES, PROMPTS, load_rows

CASES = settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEWER = settings(CASES, max_examples=15)
KINDS = (LANGUAGE, LABELLED, PREFERENCES, (("prompt", "completion"), ("messages",), *PROMPTS))
COLUMNS = (
    "prompt completion messages text label tokens tags text_pair chosen rejected answer choices tools system history "
    "chat_template_kwargs conversations instruction input output images functions id"
).split()

texts = st.text(st.characters(), max_size=8) | st.sampled_from(["a", "\u2028", "\x85", "\0", "\ud83d", "\ufeff", "1,5"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]) | scalars, "content": texts | json_values},
    optional={"tool_calls": json_values, "name": texts, "weight": scalars, "from": texts, "value": texts},
)
answer = st.fixed_dictionaries({"role": st.just("assistant"), "content": texts}, optional={"extra": json_values})
chats = st.builds(lambda head, last: [*head, last], st.lists(turns, max_size=2), answer)
shared = st.builds(
    lambda *turns: [{"from": name, "value": value} for name, value in turns],
    st.tuples(st.just("human"), texts),
    st.tuples(st.sampled_from(["gpt", "function_call", "alien"]), texts),
)
values = texts | json_values | chats | shared | st.lists(texts, max_size=3)
rows = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, values)) | st.dictionaries(texts, values, max_size=2),
    min_size=1,
    max_size=3,
)
words = st.text('ab ,;\u2028\x85\0\n"é😀', min_size=1, max_size=8).filter(str.strip)
clean = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
said = st.fixed_dictionaries({"role": st.just("user"), "content": words}, optional={"name": words, "extra": clean})
called = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | words},
    optional={
        "tool_calls": st.lists(st.dictionaries(words, clean, min_size=1), min_size=1),
        "reasoning_content": words,
    },
)
good_chats = st.builds(lambda *turns: list(turns), said, called, said, called)
plausible = st.one_of(
    st.lists(st.fixed_dictionaries(columns, optional=optional), min_size=1, max_size=3)
    for columns, optional in (
        ({"messages": good_chats}, {"tools": st.lists(st.dictionaries(words, clean)), "id": clean}),
        ({"messages": good_chats}, {"chat_template_kwargs": st.dictionaries(words, clean), "answer": scalars}),
        ({"prompt": words, "completion": words}, {"answer": scalars, "choices": st.lists(words), "id": json_values}),
        ({"chosen": good_chats, "rejected": good_chats}, {}),
        ({"text": words, "label": words | st.integers()}, {"text_pair": words}),
    )
)


SIGNED = [{"messages": [{"role": "user", "content": "q", "x": {"a": -0.0}}, {"role": "assistant", "content": "y"}]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def read(path: Path, content: bytes, kinds: Any) -> list[dict[str, Any]] | None:
    """Return the rows of a file, or None if it is refused."""
    path.write_bytes(content)
    try:
        return list(load_rows(str(path), kinds=kinds))
    except ActshiftError as error:
        message = str(error)
        assert "nexpected" not in message and len(message) < 4_000, message
        message.encode()
        return None


def same(found: Any, given: Any) -> bool:
    """Return whether a value is what was in the file; equal numbers of other types or signs are not."""
    if isinstance(given, dict) and isinstance(found, dict):
        return list(found) == list(given) and all(same(found[name], given[name]) for name in given)
    if isinstance(given, list) and isinstance(found, list):
        return len(found) == len(given) and all(map(same, found, given))
    signs_differ = isinstance(given, float) and math.copysign(1, found) != math.copysign(1, given)
    return type(found) is type(given) and found == given and not signs_differ


def check(found: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
    """Check that every value of a column that the file has is its own, up to the documented conversions."""
    assert len(found) == len(given)
    for row, source in zip(found, given, strict=True):
        if {"system", "conversations", "instruction"} & source.keys() or "chosen" in row:
            continue  # these are rewritten; `test_layouts` has their values
        for name, value in row.items():
            own = source.get(name)
            if name in ("label", "answer"):
                assert value == (None if own is None else str(own))
            elif name == "tags":
                assert value == [str(tag) for tag in own or []]
            elif name in ("messages", "prompt", "completion") and isinstance(value, list):
                continue_turns = all(isinstance(turn, dict) and "from" not in turn for turn in own or ())
                parts = isinstance(own, list) and any(isinstance(turn.get("content"), list) for turn in own)
                assert not (isinstance(own, list) and continue_turns and not parts) or same(value, own)
            elif name != "tools" or not isinstance(own, str):
                assert same(value, own), (name, value, own)


@CASES
@given(rows | plausible, st.sampled_from(KINDS), st.booleans(), st.booleans())
@example(SIGNED, LANGUAGE, True, False)
@example([{"prompt": "a", "completion": "\ud83d"}], LANGUAGE, False, True)
def test_random_json_rows_are_read_exactly_or_refused(folder: Path, given, kinds, as_lines, compressed) -> None:
    text = "\n".join(map(json.dumps, given)) if as_lines else json.dumps(given, indent=1)
    content = gzip.compress(text.encode(), mtime=0) if compressed else text.encode()
    name = f"rows.{'jsonl' if as_lines else 'json'}{'.gz' if compressed else ''}"
    if (found := read(folder / name, content, kinds)) is not None:
        check(found, given)


@FEWER
@given(plausible, st.integers(0, 400), st.binary(max_size=3), st.sampled_from(["jsonl", "json", "csv", "jsonl.gz"]))
def test_damaged_files_are_read_or_refused(folder: Path, given, at, noise, suffix) -> None:
    content = "\n".join(map(json.dumps, given)).encode()
    content = gzip.compress(content, mtime=0) if suffix.endswith("gz") else content
    read(folder / f"damaged.{suffix}", content[:at] + noise + content[at + len(noise) :], LANGUAGE)


@CASES
@given(st.binary(max_size=60), st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz"]))
def test_random_bytes_are_read_or_refused(folder: Path, content: bytes, suffix: str) -> None:
    read(folder / f"bytes.{suffix}", content, LANGUAGE)


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@CASES
@given(st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=4), st.booleans())
def test_random_csv_rows_are_read_exactly_or_refused(folder: Path, given: list[list[str]], tabs: bool) -> None:
    file = io.StringIO()
    header = ["prompt", "completion", "id", "answer"][: max(2, len(given[0]))]
    csv.writer(file, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_ALL).writerows([header, *given])
    found = read(folder / ("rows.tsv" if tabs else "rows.csv"), file.getvalue().encode(), LANGUAGE)
    if found is not None:
        assert all(len(fields) == len(header) for fields in given)
        assert [[row["prompt"], row["completion"]] for row in found] == [fields[:2] for fields in given]
