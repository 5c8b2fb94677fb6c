from __future__ import annotations

import gzip
import json

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.data import load_rows, to_prompt_completion, token_ids
from tests.characters import char_tokenizer

PAIR = {"prompt": "1+1=", "completion": "2"}
CHAT = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("a.jsonl", lines(PAIR, {**PAIR, "id": 7}), [PAIR, PAIR]),
        ("a.jsonl", "\n" + lines(PAIR) + "\n", [PAIR]),
        ("a.json", json.dumps([PAIR]), [PAIR]),
        ("a.json", lines(PAIR, PAIR), [PAIR, PAIR]),
        ("a.csv", "completion,prompt\nNA,q\n", [{"prompt": "q", "completion": "NA"}]),
        ("a.csv", "completion,prompt\n007,q\n", [{"prompt": "q", "completion": "007"}]),
        ("a.csv", "\ufefftext\nhello\n", [{"text": "hello"}]),
        ("a.jsonl", lines(CHAT), [CHAT]),
        ("a.jsonl", lines({**PAIR, "text": "no"}), [PAIR]),
    ],
)  # fmt: skip
def test_reads_each_format(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    assert list(load_rows(str(path))) == expected
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(text.encode()))
    assert list(load_rows(str(zipped))) == expected


def test_reads_parquet_and_keeps_the_first_rows(tmp_path):
    Dataset.from_list([PAIR, {**PAIR, "completion": "3"}]).to_parquet(tmp_path / "a.parquet")
    assert list(load_rows(str(tmp_path / "a.parquet"), limit=1)) == [PAIR]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", "", "a.jsonl holds no rows"),
        ("a.csv", "prompt,completion\n", "a.csv holds no rows"),
        ("a.jsonl", lines(PAIR, {"prompt": "q"}), "Row 2 of .*a.jsonl has no completion"),
        ("a.jsonl", lines({"prompt": "q"}, PAIR), "Row 1 of .*a.jsonl has no completion"),
        ("a.jsonl", lines({"prompt": "q"}), "has the columns prompt; a row needs prompt and completion"),
        ("a.jsonl", lines(PAIR, {**PAIR, "completion": " "}), "Row 2 of .* has an empty completion"),
        ("a.jsonl", lines({**PAIR, "completion": 2}), "Row 1 of .* type int where text belongs: 2"),
        ("a.csv", "prompt,completion\nq\n", "Row 1 of .* has no completion"),
        ("a.jsonl", lines(PAIR) + '{"prompt"', "Line 2 of .*a.jsonl is not valid JSON"),
        ("a.jsonl", "[1]\n", "Line 1 of .* is list where an object"),
        ("a.json", "[1]", "JSON list of other things"),
        ("a.jsonl", lines({"messages": CHAT["messages"][:1]}), "do not end with an assistant's turn"),
        ("a.jsonl", lines({"messages": "hi"}), "not a list of turns"),
        ("a.parquet", "no", "a.parquet cannot be read"),
        ("a.txt", "no", "give one of .jsonl, .json, .csv, .parquet"),
        ("a.jsonl.gz", "no", "a.jsonl.gz cannot be read"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ActshiftError, match=message):
        load_rows(str(path))


def test_missing_file_and_unreachable_hub():
    with pytest.raises(ActshiftError, match=r"There is no file nowhere\.jsonl"):
        load_rows("nowhere.jsonl")
    with pytest.raises(ActshiftError, match="no such file, and the hub gave no split 'train'"):
        load_rows("somebody/some-rows")


def test_a_folder_that_cannot_be_read_as_a_dataset_is_told(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt"')
    with pytest.raises(ActshiftError, match="There is no data at"):
        load_rows(str(tmp_path))


def test_chat_template_makes_prompt_and_completion():
    tokenizer = char_tokenizer()
    with pytest.raises(ActshiftError, match="has no chat template"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    tokenizer.chat_template = TEMPLATE
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>", "completion": "2"}
    pairs = Dataset.from_list([PAIR])
    assert to_prompt_completion(pairs, tokenizer) is pairs


def test_template_that_opens_an_answer_differently_keeps_the_prompt_of_generation():
    tokenizer = char_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("<a>{%", "<a>?{%")
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>?", "completion": "2"}


def test_template_that_refuses_a_row_is_named():
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ActshiftError, match="refuses the messages of row 1: roles must alternate"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)


def test_start_token_comes_once():
    tokenizer = char_tokenizer()
    assert token_ids(tokenizer, ["<s>1", "1"]) == token_ids(tokenizer, ["1", "1"])
    assert token_ids(tokenizer, ["1"])[0][0] == tokenizer.bos_token_id
