"""Files of rows: damaged, hostile and unusual bytes are read exactly, or refused in seconds by one clear line."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import os
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets, interleave_datasets

from actshift import ActshiftError
from actshift.data import LANGUAGE, load_rows
from actshift.data import arrow as arrow_module
from actshift.data.readers import MAX_ROW

PAIR = '{"prompt": "a", "completion": "b"}'
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}


def write(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"prompt": "a\u2028b\x85c", "completion": "b"}', [("a\u2028b\x85c", "b")]),
        ("a.jsonl", f"{PAIR}\r{PAIR}", [("a", "b")] * 2),
        ("a.jsonl", f"{PAIR}\r\n\r\n{PAIR}\r\n", [("a", "b")] * 2),
        ("a.jsonl", f"\ufeff{PAIR}\n\ufeff{PAIR}", [("a", "b")] * 2),
        ("a.jsonl", '{"prompt": "a\\u0000", "completion": "\\ud83d\\ude00"}', [("a\0", "😀")]),
        ("a.jsonl", codecs.BOM_UTF16_LE + '{"prompt": "é", "completion": "b"}'.encode("utf-16-le"), [("é", "b")]),
        ("a.json", f"[{PAIR}\n,{PAIR}]\n", [("a", "b")] * 2),
        ("a.json", json.dumps({"prompt": "a", "completion": "b"}, indent=2), [("a", "b")]),
        ("a.csv", "prompt,completion\ra,b\r", [("a", "b")]),
        ("a.csv", 'prompt,completion\r\n"a\r\n""x""","b"\r\n\r\n', [('a\r\n"x"', "b")]),
        ("a.csv", "prompt,completion\na\u2028b,c\x85d\n", [("a\u2028b", "c\x85d")]),
        ("a.csv", " prompt, completion\na,b\n", [("a", "b")]),
        ("a.csv", ",prompt,completion\n0,a,b\n1,c,d\n", [("a", "b"), ("c", "d")]),
        ("a.csv", "prompt,completion\n" + "w" * 200_000 + ",b\n", [("w" * 200_000, "b")]),
        ("a.tsv", 'prompt\tcompletion\na,1\t"b"\n', [("a,1", "b")]),
    ],
)
def test_unusual_text_is_read_exactly(tmp_path: Path, name: str, content: str | bytes, expected: Any) -> None:
    limit = csv.field_size_limit()
    rows = load_rows(write(tmp_path, name, content))
    assert [(row["prompt"], row["completion"]) for row in rows] == expected
    assert csv.field_size_limit() == limit


DEEP = "[" * 100_000
LONG = "a" * (MAX_ROW + 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "é", "completion": "b"}'.encode("latin-1"), "Line 1 of .* is not UTF-8"),
        ("a.jsonl", '{"prompt": "a\ud83d", "completion": "b"}', "Line 1 of .* is not UTF-8"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16-le"), "NUL characters"),
        ("a.jsonl", codecs.BOM_UTF16_LE + b'{\0"', "begins as UTF-16 but is not"),
        ("a.jsonl", DEEP, "Line 1 of .* nested too deeply"),
        ("a.jsonl", f'{PAIR}\n{{"a": {DEEP}{"]" * 100_000}}}', "Line 2 of .* nested too deeply"),
        ("a.json", DEEP, "nested too deeply"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "q", "x": ' + "[" * 300 + "]" * 300
         + '}, {"role": "assistant", "content": "y"}]}', "Row 1 of .* nested more than 100 deep"),
        ("a.jsonl", '{"prompt": "a", "prompt": "b", "completion": "c"}', "has the key 'prompt' twice"),
        ("a.json", '[{"a": [{"b": 1, "b": 2}]}]', "has the key 'b' twice"),
        ("a.jsonl", '{"prompt": "a", "n": ' + "9" * 5_000 + "}", "4300 digits"),
        ("a.json", f"[{PAIR}", "list is not closed after row 1"),
        ("a.json", f"[{PAIR}] x", "text follows"),
        ("a.json", f"[{PAIR} {PAIR}]", "Row 2 of .* no comma before it"),
        ("a.json", f"[{PAIR},]", "Row 2 of .* is not valid JSON"),
        ("a.json", '[{"prompt": "a', "Row 1 of .* Unterminated string"),
        ("a.jsonl", f'{{"prompt": "{LONG}"}}', "Line 1 of .* more than 16 million characters"),
        ("a.json", f'[{{"prompt": "{LONG}"}}]', "Row 1 of .* more than 16 million characters"),
        ("a.csv", f"text\n{LONG}\n", "Line 2 of .* more than 16 million characters"),
        ("a.csv", "prompt,completion\na,b\nthe largest of one, two, three\n", r"Row 2 of .* \(line 3\) has 3 fields"),
        ("a.csv", "prompt,prompt,completion\na,b,c\n", "the column 'prompt' twice"),
        ("a.csv", "prompt,,completion\na,b,c\n", "a column without a name"),
        ("a.csv", ",prompt,completion\nx,b,c\n", "a column without a name"),
        ("a.csv", "prompt;completion\na;b\n", "separate fields by commas"),
        ("a.csv", "prompt\tcompletion\na\tb\n", "name the file .tsv"),
        ("a.csv", 'prompt,completion\n"a,b\n', "a quote is not closed"),
        ("a.jsonl.gz", gzip.compress(PAIR.encode(), mtime=0)[:-8], "damaged or incomplete"),
        ("a.jsonl.gz", gzip.compress(f"{PAIR}\n".encode() * 2**18, mtime=0), "expands to more than 200 times"),
        ("a.jsonl.gz", gzip.compress(b"a" * 2**25, mtime=0), "more than 16 million characters"),
        ("a.json.gz", gzip.compress(b"[" + PAIR.encode() + b"," * 2**23, mtime=0), "Row 2 of .* is not valid JSON"),
        ("a.parquet", "", "no Parquet file, or is damaged"),
    ],
)  # fmt: skip
def test_damaged_and_endless_files_are_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path, start = write(tmp_path, name, content), time.monotonic()
    with pytest.raises(ActshiftError, match=message) as caught:
        load_rows(path)
    assert time.monotonic() - start < 60 and len(str(caught.value)) < 600
    assert "nexpected" not in str(caught.value)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.symlink(tmp_path / "none", tmp_path / "link.jsonl")
    os.symlink(tmp_path / "loop.jsonl", tmp_path / "loop.jsonl")
    for source, message in [
        (tmp_path / "folder.jsonl", "is a folder; give a regular file"),
        (tmp_path / "pipe.jsonl", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        (tmp_path / "link.jsonl", "a link to a file that does not exist"),
        (tmp_path / "loop.jsonl", "a link to a file that does not exist"),
        ("a\0.jsonl", "There is no file"),
        ("a" * 5_000 + ".jsonl", "There is no file"),
        ("", "There is no data at ''"),
        ("https://example.com/rows.jsonl", "There is no data at 'https"),
    ]:
        with pytest.raises(ActshiftError, match=message):
            load_rows(str(source))


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.jsonl", PAIR)

    def deny(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "open", deny)  # root may read everything
    with pytest.raises(ActshiftError, match=r"a\.jsonl cannot be read: Permission denied\."):
        load_rows(path)


def test_threads_read_long_csv_fields_at_once(tmp_path: Path) -> None:
    limit, lengths = csv.field_size_limit(), []
    path = write(tmp_path, "a.csv", "text\n" + f"{'w' * 200_000}\n" * 20)
    threads = [Thread(target=lambda: lengths.append(len(load_rows(path)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [20] * 4 and csv.field_size_limit() == limit


NESTED = [
    {"messages": [USER, {**ANSWER, "x": {"a": 1, "n": 0.30000000000000004, "big": 10**30, "zero": -0.0}}]},
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"b": None}, "c"][:1]}, ANSWER]},
    {"messages": [{**USER, "name": "n"}, ANSWER]},
]


def test_nested_values_survive_every_operation_of_a_dataset(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, NESTED))))
    split = rows.train_test_split(2, seed=0)
    assert list(rows) == list(rows.map(lambda row: row)) == NESTED
    assert list(rows.map(lambda batch: batch, batched=True)) == list(rows.filter(lambda row: True)) == NESTED
    assert sorted(map(json.dumps, [*split["train"], *split["test"]])) == sorted(map(json.dumps, NESTED))
    assert list(concatenate_datasets([rows, rows.select([0])])) == [*NESTED, NESTED[0]]
    assert next(iter(interleave_datasets([rows, rows]))) == NESTED[0]


def test_keys_that_arrow_added_are_dropped_and_json_columns_are_exact(tmp_path: Path) -> None:
    calls = [{"function": {"name": "f", "arguments": arguments}} for arguments in ({"a": 1}, {"b": "x"})]
    chats = [{"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]} for call in calls]
    pq.write_table(pa.Table.from_pylist(chats), tmp_path / "merged.parquet")
    assert list(load_rows(str(tmp_path / "merged.parquet"))) == chats
    chats[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] = {"a": None}
    Dataset.from_list(chats, on_mixed_types="use_json").to_parquet(tmp_path / "json.parquet")
    assert list(load_rows(str(tmp_path / "json.parquet"))) == chats
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    options = pa.table({"messages": [[USER, ANSWER]], "chat_template_kwargs": maps})
    pq.write_table(options, tmp_path / "map.parquet")
    assert load_rows(str(tmp_path / "map.parquet"))[0]["chat_template_kwargs"] == {"a": 1}
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "twice.parquet")
    with pytest.raises(ActshiftError, match="has the column 'text' twice"):
        load_rows(str(tmp_path / "twice.parquet"))


def test_large_files_are_mapped_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_module, "_MEMORY", 1_000)
    monkeypatch.setattr(arrow_module, "_BATCH", 10)
    rows = load_rows(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, NESTED * 50))))
    assert rows.cache_files and list(rows) == NESTED * 50


def test_several_sources_are_joined_or_mixed(tmp_path: Path) -> None:
    def file(name: str, count: int, **more: Any) -> str:
        row = {"messages": [USER, {**ANSWER, "content": name}], **more}
        return write(tmp_path, f"{name}.jsonl", f"{json.dumps(row)}\n" * count)

    a, b, tools = file("a", 30), file("b", 10), file("c", 2, tools=[{"name": "f"}])

    def names(*sources: str) -> list[str]:
        return [row["messages"][-1]["content"] for row in load_rows(sources)]

    assert names(a, b) == ["a"] * 30 + ["b"] * 10
    mixed = names(f"{a}=0.5", f"{b}=0.5")
    assert mixed == names(f"{a}=1", f"{b}=1") and mixed.count("a") >= 30
    assert 0.35 < mixed.count("b") / len(mixed) < 0.65
    assert [row["tools"] for row in load_rows([a, tools])] == [None] * 30 + [[{"name": "f"}]] * 2
    pair, odd = write(tmp_path, "pair.jsonl", PAIR), write(tmp_path, "odd.jsonl=2", PAIR)
    for sources, message in [
        ([a, a], "are given twice"),
        ([a, f"{tmp_path}/./a.jsonl"], "are given twice"),
        ([f"{a}=1e-9", f"{b}=1"], "more than 20 times the 40 rows"),
        ([f"{a}=1e308", f"{b}=1e-300"], "more than 20 times the 40 rows"),
        ([f"{a}=0.5", b], "Give all of .* a weight"),
        ([f"{a}=0", f"{b}=1"], "must be a number above 0, got 0"),
        ([f"{a}=1"], "has no effect without other rows"),
        ([a, pair], "cannot be mixed with"),
        ([a, "none.jsonl"], "There is no file none"),
        ([odd], "odd.jsonl=2 has an unknown format"),
    ]:
        with pytest.raises(ActshiftError, match=message):
            load_rows(sources, kinds=LANGUAGE)
