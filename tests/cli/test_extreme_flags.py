"""Extreme and impossible values of flags end with one clear line, in reasonable time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.cli.errors import explain
from actshift.cli.main import VERBS, load_verb
from actshift.compare import CompareSettings, select_methods
from actshift.training import TrainSettings
from tests.cli.conftest import PAIRS, Run

HUGE, MANY = str(10**30), "9" * 5000
NUMBERS = ("-1", HUGE, MANY, "nan", "inf", "1e308", "", "abc", "٣x")
OUTPUTS = ("", ".", "/", "none/there.json", "file/x", "x" * 5000)
SOURCES = ("", "file", "fifo.jsonl", "none/there.jsonl", "\udcff", "a\nb", "x" * 5000, "a/b/c")

CASES = [
    *(("train", flag, value) for value in NUMBERS for flag in ("--rank", "--seed", "--epochs", "--max-steps")),
    *(("train", flag, value) for value in (HUGE, "-1", "nan") for flag in ("--batch-size", "--learning-rate")
      if (flag, value) != ("--learning-rate", HUGE)),
    *(("train", flag, value) for value in SOURCES for flag in ("--model", "--data", "--config")),
    *(("train", flag, "junk") for flag in ("--method", "--objective", "--site", "--positions", "--precision")),
    *(("train", "--layers", value) for value in ("", "abc", "0:4:0", HUGE, "1.5")),
    *(("generate", flag, value) for value in NUMBERS for flag in ("--max-new-tokens", "--temperature")
      if (flag, value) not in {("--temperature", HUGE), ("--temperature", "1e308")}),
    *(("generate", flag, value) for value in SOURCES for flag in ("--model", "--adapter")),
    *(("eval", flag, value) for value in NUMBERS for flag in ("--limit", "--batch-size")),
    *(("eval", "--out", value) for value in OUTPUTS),
    *(("report", "--out", value) for value in OUTPUTS),
    *(("locate", "--figure", value) for value in (*OUTPUTS, "page.txt")),
    *(("inspect", None, value) for value in SOURCES),
    *(("tasks", None, value) for value in ("", "junk", "x.yaml", "fifo.yaml", "\udcff.yaml", "file")),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "flag", "value"), CASES, ids=lambda value: repr(value)[:20])
def test_an_impossible_value_is_refused_in_one_line(
    refused: Callable[..., str],
    model: Path,
    adapter: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    flag: str | None,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no rows")
    for name in ("fifo.jsonl", "fifo.yaml"):
        os.mkfifo(name)
    words = {
        "train": {"--model": model, "--data": write_rows(PAIRS), "--out": "out", "--dry-run": None},
        "generate": {"--model": model, "--adapter": adapter, "--prompt": "w1", "--max-new-tokens": 1},
        "eval": {"--model": model, "--data": write_rows(PAIRS), "--max-new-tokens": 1},
        "report": {"--model": model, "--data": write_rows(PAIRS), "--out": "page.html"},
        "locate": {"--model": model, "--data": write_rows(PAIRS)},
    }.get(verb, {})
    options = [*({**words, flag: value} if flag else words).items()]
    message = refused(
        verb, *([] if flag else [value]), *(word for pair in options for word in pair if word is not None)
    )
    assert "nexpected" not in message
    assert len(message) < 2100


@pytest.mark.parametrize("verb", VERBS)
def test_every_whole_number_has_a_largest_value(refused: Callable[..., str], verb: str) -> None:
    required = {"vector": ("--positive", "a", "--negative", "b", "--out", "c"), "report": ("--out", "a"),
                "extract": ("--finetuned", "a", "--out", "b"), "export": ("--adapter", "a", "--out", "b")}  # fmt: skip
    numbers = [flag for flag in ("--limit", "--rank", "--seed", "--steps", "--batch-size", "--max-new-tokens")
               if any(flag in parameter.opts for parameter in load_verb(verb).params)]  # fmt: skip
    for flag in numbers:
        assert "4294967295" in refused(verb, *required.get(verb, ()), flag, HUGE)


@pytest.mark.parametrize(
    "value", [[], {}, [[1]], b"x", pytest.param(10**5000, id="big"), range(10**30), {1}, float("nan"), "\udcff", MANY]
)
def test_a_setting_of_a_wrong_type_raises_only_our_error(value: object) -> None:
    for name in TrainSettings.__dataclass_fields__:
        try:
            TrainSettings.from_mapping({name: value}).total_steps(100)
        except ActshiftError as error:
            assert len(str(error)) < 2100
    for name in CompareSettings.__dataclass_fields__:
        try:
            CompareSettings(**{name: value})
        except ActshiftError as error:
            assert len(str(error)) < 2100


@pytest.mark.parametrize("value", [None, [], {}, "", 1, True, [None], [1, "a"], {"a": 1}, ["1", "1"], [-1], 10**30])
def test_a_methods_file_of_a_wrong_form_raises_only_our_error(tmp_path: Path, value: object) -> None:
    path = tmp_path / "methods.json"
    sections = [{"methods": {"own": {"rates": [1e-3], name: value}}} for name in ("label", "settings", "rates", "junk")]
    sections += [{"methods": value}, {"common": value, "methods": {"vector": {}}}, {"methods": {"vector": value}}]
    for section in sections:
        path.write_text(json.dumps(section))
        try:
            select_methods([str(path)])
        except ActshiftError as error:
            assert len(str(error)) < 2100


@pytest.mark.parametrize("columns", ["0", "1", "abc", HUGE[:5]])
def test_any_width_of_the_terminal_shows_the_table(
    actshift: Run, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = actshift("tasks")
    assert code == 0
    assert "gsm8k" in out


def test_memory_that_torch_cannot_allocate_is_explained() -> None:
    message = "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"
    assert explain(RuntimeError(message)).startswith("Out of memory.")
