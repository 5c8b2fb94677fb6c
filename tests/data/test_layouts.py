"""Layouts of rows: each is found by its columns and converted, or refused with the row and the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actshift import ActshiftError
from actshift.data import LABELLED, LANGUAGE, PREFERENCES, PROMPTS, load_rows

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}
SYSTEM, CHAT = {"role": "system", "content": "s"}, [USER, ANSWER]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]
PAIR = {"prompt": "p", "completion": "c"}
REWARD = (("prompt", "completion"), ("messages",), *PROMPTS)
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
ALPACA = "### Instruction:\ni\n\n### Input:\nx\n\n### Response:"


def load(tmp_path: Path, *rows: Any, kinds: Any = LANGUAGE, **options: Any) -> list[dict[str, Any]]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return list(load_rows(str(path), kinds=kinds, **options))


@pytest.mark.parametrize(
    ("row", "expected", "kinds"),
    [
        ({"instruction": "i", "input": "x", "output": "o"}, {"prompt": ALPACA, "completion": "\no"}, LANGUAGE),
        ({"instruction": "i", "output": "o", "text": "all"},
         {"prompt": "### Instruction:\ni\n\n### Response:", "completion": "\no"}, LANGUAGE),
        ({"conversations": SHARED}, {"messages": CHAT}, LANGUAGE),
        ({"messages": SHARED}, {"messages": CHAT}, LANGUAGE),
        ({"conversations": CHAT}, {"messages": CHAT}, LANGUAGE),
        ({"conversations": SHARED, "system": "s", "tools": '[{"name": "f"}]'},
         {"messages": [SYSTEM, *CHAT], "tools": [{"name": "f"}]}, LANGUAGE),
        ({"conversations": [SHARED[0], {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
                            {"from": "observation", "value": "3"}, SHARED[1]]},
         {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
                       {"role": "tool", "content": "3"}, ANSWER]}, LANGUAGE),
        ({"prompt": [USER], "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}, LANGUAGE),
        ({"prompt": [USER], "completion": "yes"}, {"prompt": [USER], "completion": [ANSWER]}, LANGUAGE),
        ({"prompt": "q", "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}, LANGUAGE),
        ({"prompt": [USER], "tools": [{"name": "f"}]}, {"prompt": [USER], "tools": [{"name": "f"}]}, REWARD),
        ({"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [ANSWER]},
         {"chosen": [SYSTEM, *CHAT], "rejected": [SYSTEM, *CHAT]}, PREFERENCES),
        ({"prompt": "q", "chosen": CHAT, "rejected": CHAT}, {"chosen": CHAT, "rejected": CHAT}, PREFERENCES),
        ({"prompt": "q", "chosen": [ANSWER], "rejected": [ANSWER]}, {"chosen": CHAT, "rejected": CHAT}, PREFERENCES),
        ({"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": SHARED[1]},
         {"chosen": CHAT, "rejected": CHAT}, PREFERENCES),
        ({"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"},
         {"prompt": ALPACA, "chosen": "a", "rejected": "b"}, PREFERENCES),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]},
         {"messages": CHAT}, LANGUAGE),
        ({"messages": CHAT, "images": []}, {"messages": CHAT}, LANGUAGE),
        ({"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}},
         {"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}}, LANGUAGE),
        ({"text": "a", "label": 1, "text_pair": "b"}, {"text": "a", "label": "1", "text_pair": "b"}, LABELLED),
    ],
)  # fmt: skip
def test_each_layout_is_converted(tmp_path: Path, row: Any, expected: Any, kinds: Any) -> None:
    assert load(tmp_path, row, kinds=kinds) == [expected]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "i", "output": ""}, "Row 2 of .* has an empty output"),
        ({"instruction": "i", "input": 5, "output": "o"}, "Row 2 of .* has an input of type int"),
        ({"instruction": "i", "output": "o", "system": "s"}, "Row 2 of .* has system, which prompt and completion"),
        ({"instruction": "i", "output": "o", "history": [["a", "b"]]}, "Row 2 of .* has history"),
        ({"conversations": [{"from": "alien", "value": "q"}, SHARED[1]]}, "from 'alien'; use one of human"),
        ({"conversations": [{**SHARED[0], "role": "user"}, SHARED[1]]}, "both from and role"),
        ({"conversations": [SHARED[0], {"from": "function_call", "value": "f(1)"}, SHARED[1]]}, "a function_call that"),
        ({"conversations": [SHARED[0], {**SHARED[1], "weight": 0}]}, "turn 2 has weight 0, which is not supported"),
        ({"conversations": [SHARED[0], {**SHARED[1], "loss": False}]}, "turn 2 has loss False, which is not supported"),
        (
            {"messages": [USER, {**ANSWER, "function_call": {"name": "f", "arguments": "{}"}}]},
            "turn 2 has a function_call, .* write it as tool_calls",
        ),
        ({"messages": [USER, {**ANSWER, "train": False}]}, "turn 2 has train False"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "turn 1 has parts other than one"),
        ({"messages": [{"role": "user", "content": 5}, ANSWER]}, "turn 1 has a content of type int"),
        ({"messages": [{"role": "user"}, ANSWER]}, "turn 1 has no content"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "turn 2 is empty"),
        ({"messages": [USER, {**ANSWER, "tool_calls": {}}]}, "turn 2 has tool_calls that are not a list of objects"),
        ({"messages": CHAT, "tools": "nope"}, "tools that are not a list of objects"),
        ({"messages": CHAT, "chat_template_kwargs": "x"}, "chat_template_kwargs of type str; they must be an object"),
        ({"messages": CHAT, "chat_template_kwargs": {"tokenize": True}}, "with tokenize, which cannot be set"),
        ({"messages": CHAT, "functions": [{"name": "f"}]}, "has functions, which messages cannot use"),
        ({"messages": CHAT, "images": ["a.png"]}, "has images, .* only text is supported"),
        ({"messages": [SYSTEM, *CHAT], "system": "s"}, "a column system, and also messages that begin with a system"),
        ({"messages": [{"role": "user", "content": "q", "x": float("nan")}, ANSWER]}, "JSON cannot hold"),
        ({"messages": [{"role": "user", "content": "q", "x": "\ud83d"}, ANSWER]}, r"U\+D83D, a lone surrogate"),
        ({**PAIR, "completion": "\ud83d"}, "Row 2 of .* has half of a character"),
        ({**PAIR, "tools": [{"name": "f"}]}, "has tools, which prompt and completion cannot use"),
        ({**PAIR, "label": False}, r"a label that is true or false \(KTO\)"),
        ({"prompt": CHAT, "completion": [ANSWER]}, "a prompt that ends with an assistant's turn"),
        ({**PAIR, "messages": CHAT}, "has prompt and completion, and also messages; choose by --map"),
    ],
)  # fmt: skip
def test_what_no_layout_can_use_is_refused(tmp_path: Path, row: Any, message: str) -> None:
    first = {name: value for name, value in ({"messages": CHAT, **PAIR}).items() if name in row}
    first |= {"instruction": "i", "output": "o"} if "instruction" in row else {}
    first |= {"conversations": SHARED} if "conversations" in row else {}
    with pytest.raises(ActshiftError, match=message):
        load(tmp_path, first, row)


@pytest.mark.parametrize(
    "second", [{"prompt": [USER], "completion": [ANSWER]}, {"prompt": "p", "completion": [ANSWER]}]
)
def test_all_rows_have_one_form(tmp_path: Path, second: Any) -> None:
    with pytest.raises(ActshiftError, match=r"Row 2 of .* has a prompt of type list, unlike the first row"):
        load(tmp_path, PAIR, second)


@pytest.mark.parametrize(
    ("row", "renames", "expected"),
    [
        (
            {"question": "q", "answer": "a"},
            ["prompt=question", "completion=answer"],
            {"prompt": "q", "completion": "a"},
        ),
        ({**PAIR, "gold": 7}, ["answer=gold"], {**PAIR, "answer": "7"}),
        (PAIR, ["prompt=completion", "completion=prompt"], {"prompt": "c", "completion": "p"}),
        ({**PAIR, "question": "q"}, ["prompt=question"], {"prompt": "q", "completion": "c"}),
        ({"dialog": SHARED}, ["messages=dialog"], {"messages": CHAT}),
        ({**PAIR, "messages": CHAT}, ["messages=messages"], {"messages": CHAT}),
    ],
)
def test_map_reads_columns_under_other_names(tmp_path: Path, row: Any, renames: list[str], expected: Any) -> None:
    assert load(tmp_path, row, renames=renames) == [expected]


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        (["prompt=qestion"], r"has no column 'qestion' \(did you mean 'question'\?\) for prompt"),
        (["promt=question"], "did you mean 'prompt'"),
        (["prompt"], "map must be name=column"),
        (["prompt=question", "prompt=answer"], "map gives prompt twice"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path: Path, renames: list[str], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        load(tmp_path, {"question": "q", "answer": "a"}, renames=renames)


def test_choices_that_are_not_texts_are_left_out_with_the_reason(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b", "answer": "b", "choices": [1, 2]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.warns(UserWarning, match=r"not used: choices \(missing in a row, or of another type\)"):
        assert load_rows(str(path)).column_names == ["prompt", "completion", "answer"]


def test_the_layout_and_unused_columns_are_stated(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "q", "output": "o", "id": 1}))
    with pytest.warns(UserWarning, match="question as instruction and output \\(Alpaca\\); not used: id"):
        rows = load_rows(str(path), renames=["instruction=question"])
    assert rows.info.description.endswith("rows.jsonl: question as instruction and output (Alpaca); not used: id")
