"""Prompts at inference are those of training: rendered by the chat template if training rendered messages."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from actshift import ActshiftError
from actshift.cli.prompts import ChatMode, Prompt, choose_chat, read_prompts
from actshift.data import check_rows, token_ids
from actshift.data.encode import encode
from actshift.training.result import ChatRecord, recorded_chat
from tests.characters import char_tokenizer
from tests.cli.conftest import Run
from tests.tiny import save_adapter, save_model, word_tokenizer

FEW = ("--max-new-tokens", 4)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ {'system': 'w50', 'user': 'w51', 'assistant': 'w52'}[m.role] }} "
    "{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %} w52{{ ' w53' if short }} {% endif %}"
)
USER = {"role": "user", "content": "c"}
MESSAGES = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("chat") / "model")
    word_tokenizer(chat_template=TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter without a record, as older versions and other verbs write it."""
    return save_adapter(tmp_path_factory.mktemp("chat") / "adapter", chat_model, rank=4)


@pytest.fixture
def trained(plain: Path, tmp_path: Path):
    """Return a copy of the adapter with the record of a training."""

    def copy(**chat: Any) -> Path:
        folder = Path(shutil.copytree(plain, tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"))
        (folder / "metrics.json").write_text(json.dumps({"chat": {"rendered": True, "template_kwargs": {}, **chat}}))
        return folder

    return copy


def test_training_records_how_its_rows_became_text(actshift: Run, chat_model: Path, write_rows, tmp_path: Path) -> None:
    rows = write_rows([{"messages": MESSAGES, "chat_template_kwargs": {"short": True}}] * 4)
    how = ("--model", chat_model, "--max-steps", 1, "--out")
    assert actshift("train", "--data", rows, *how, tmp_path / "chats").code == 0
    assert recorded_chat(str(tmp_path / "chats")) == ChatRecord(True, {"short": True})
    assert recorded_chat("/nowhere") is None
    for rows, record in (
        ([{"prompt": "w1", "completion": "w2"}], ChatRecord(False)),
        ([{"messages": MESSAGES, "chat_template_kwargs": {"short": n}} for n in (1, 2)], ChatRecord(True)),
    ):
        assert ChatRecord.of_rows(check_rows(rows, "rows")) == record


def test_a_served_prompt_has_the_token_ids_of_training() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}<a>"
    chat = [{"role": "system", "content": "b"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for template in (tokenizer.chat_template, tokenizer.chat_template.replace("{{ bos_token }}", "")):
        tokenizer.chat_template = template.replace("<a>", "{% if add_generation_prompt %}<a>{% endif %}")
        [example] = encode(check_rows([{"messages": chat}], "rows"), tokenizer, 64).examples
        texts = ChatMode(True, system="b").render_all([Prompt("q"), Prompt(chat[1:2])], tokenizer)
        for ids in token_ids(tokenizer, texts, add_special_tokens=False):
            assert ids == example["input_ids"][: example["labels"].count(-100)]


def test_generate_renders_what_training_rendered(actshift: Run, refused, plain: Path, trained, tmp_path: Path) -> None:
    def answer(adapter: Path, *options: object) -> str:
        code, out, err = actshift("generate", "--adapter", adapter, *FEW, *options)
        assert code == 0, err
        return out

    prompt, chats = ("--prompt", "w1 w2"), trained()
    rendered = answer(plain, "--prompt", "<bos> w51 w1 w2 w52")
    assert answer(chats, *prompt) == answer(plain, *prompt, "--chat") == rendered
    assert answer(plain, *prompt) == answer(chats, *prompt, "--no-chat") != rendered
    system = answer(plain, "--prompt", "<bos> w50 w9 w51 w1 w2 w52")
    assert answer(plain, *prompt, "--system", "w9") == answer(chats, *prompt, "--system", "w9") == system
    short = answer(plain, "--prompt", "<bos> w51 w1 w2 w52 w53")
    assert answer(trained(template_kwargs={"short": True}), *prompt) == short != rendered
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": value}) + "\n" for value in (MESSAGES[:1], "w1 w2")))
    table = answer(plain, "--prompts", file)
    assert "{'role'" not in table and "<bos> w51 w1 w2 w52" in table
    rows = json.loads(answer(plain, "--prompts", file, "--json"))
    assert [row["prompt"] for row in rows] == [MESSAGES[:1], "w1 w2"]
    assert [row["adapters"][str(plain)] + "\n" for row in rows] == [rendered, rendered]
    assert "Prompt 1 is a list of messages" in refused("generate", "--adapter", plain, "--prompts", file, "--no-chat")
    both = ("generate", "--adapter", chats, "--adapter", trained(rendered=False), *prompt)
    assert "was trained on rendered chats, and" in refused(*both)
    assert actshift(*both, "--chat", *FEW).code == 0


def test_eval_renders_what_training_rendered(actshift: Run, refused, plain, trained, write_rows, tmp_path) -> None:
    def prompts(rows: list[dict], adapter: Path, *options: object) -> list[str]:
        out = tmp_path / "predictions.jsonl"
        data = write_rows(rows)
        code, _, err = actshift("eval", "--adapter", adapter, "--data", data, "--out", out, *FEW, *options)
        assert code == 0, err
        return [json.loads(line)["prompt"] for line in out.read_text().splitlines()]

    pairs, rendered = [{"prompt": "w1 w2", "completion": "w3"}], ["<bos> w51 w1 w2 w52 "]
    assert prompts(pairs, plain) == prompts(pairs, trained(), "--no-chat") == ["w1 w2"]
    assert prompts(pairs, plain, "--chat") == prompts(pairs, trained()) == rendered
    assert (
        prompts([{"messages": MESSAGES}], plain)
        == prompts([{"messages": MESSAGES}], trained(rendered=False))
        == rendered
    )
    system = ["<bos> w50 w9 w51 w1 w2 w52 "]
    assert (
        prompts([{"messages": MESSAGES}], plain, "--system", "w9") == prompts(pairs, plain, "--system", "w9") == system
    )
    assert prompts(pairs, trained(template_kwargs={"short": True})) == ["<bos> w51 w1 w2 w52 w53 "]
    data = write_rows([{"messages": [{"role": "system", "content": "w8"}, *MESSAGES]}])
    assert "Row 1 has a system prompt of its own" in refused(
        "eval", "--adapter", plain, "--data", data, "--system", "w9"
    )
    assert "Leave out --no-chat" in refused("eval", "--adapter", plain, "--data", data, "--no-chat")


def test_chat_renders_unless_it_is_switched_off(actshift: Run, refused, trained, model: Path, monkeypatch) -> None:
    def answer(*options: object, adapter: Path | None = None) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2\n"))
        code, out, err = actshift("chat", "--adapter", adapter or trained(), *FEW, *options)
        assert code == 0, err
        assert ("was trained on plain texts" in err) == (adapter is not None)
        return out.split("\n")[0].removeprefix("> ").strip()

    def completion(prompt: str) -> str:
        return actshift("generate", "--adapter", trained(), "--no-chat", "--prompt", prompt, *FEW).out.strip()

    assert answer() == answer(adapter=trained(rendered=False)) == completion("<bos> w51 w1 w2 w52")
    assert answer("--no-chat") == completion("w1 w2")
    assert answer("--system", "w9") == completion("<bos> w50 w9 w51 w1 w2 w52")
    assert "has no chat template; leave out --chat" in refused("chat", "--model", model, "--chat")
    assert "has no chat template; leave out --chat" in refused("generate", "--model", model, "--prompt", "w1", "--chat")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": null}', "Row 2 of .* has no prompt"),
        ('{"prompt": {"a": 1}}', "Row 2 of .* has prompt that are not a list of turns"),
        ('{"prompt": 5}', "Row 2 of .* has a prompt of type int; it must be text"),
        ('{"prompt": []}', "Row 2 of .* has prompt that are not a list of turns"),
        ('{"prompt": ["w1"]}', "Row 2 of .* has prompt that are not a list of turns"),
        ('{"prompt": [{"content": "w1"}]}', "Row 2 of .* has prompt that are not a list of turns"),
        ('{"text": "w1"}', "Row 2 of .* has no .prompt., which is a text or a list of messages"),
        (
            '{"prompt": "w1", "tools": [{"name": "f"}]}',
            "Row 2 of .* has tools, which prompt cannot use; use rows",
        ),
        ("null", "Line 2 of .* is null"),
        ('{"prompt": "w1", "prompt": "w2"}', "Line 2 of .*has the key 'prompt' twice"),
        ("[" * 100_000, "Line 2 of .* is not valid JSON"),
    ],
)
def test_an_unusable_prompt_is_refused_with_its_row(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "w1"}}\n{line}\n')
    with pytest.raises(ActshiftError, match=message):
        read_prompts(None, file)


def test_files_may_have_a_byte_order_mark_and_separators_inside_a_prompt(tmp_path: Path) -> None:
    for suffix, text in (
        (".txt", "a\u2028b\r\nc\n"),
        (".jsonl", '{"prompt": "a\u2028b"}\r\n\n{"messages": [{"role": "user", "content": "c"}]}\n'),
    ):
        file = tmp_path / f"prompts{suffix}"
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        first, second = read_prompts(None, file)
        assert (first.content, second.content[-1:]) == ("a\u2028b", "c" if suffix == ".txt" else [USER])


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl", "pipe"])
def test_prompts_come_from_rows_of_every_format(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "a, b", "id": "1"}, {"prompt": "c", "id": "2"}]
    texts = {"a.json": json.dumps(rows, indent=1), "a.csv": 'prompt,id\n"a, b",1\nc,2\n'}
    file = tmp_path / name
    file.write_text(texts.get(name, "\n".join(map(json.dumps, rows))))
    with pytest.warns(UserWarning, match="Prompts do not use these columns of .*: id"):
        assert read_prompts(None, file) == [Prompt("a, b"), Prompt("c")]


def test_lines_that_only_look_like_json_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('{"a": 1}\n{"prompt": "w1"}\n')
    assert read_prompts(None, file) == [Prompt('{"a": 1}'), Prompt('{"prompt": "w1"}')]
    file.write_text('{"prompt": "w1"}\nw2\n')
    with pytest.raises(ActshiftError, match=r"Row 2 of .* is no JSON object, unlike the first"):
        read_prompts(None, file)


def test_tools_options_and_the_system_text_of_a_row_reach_the_template(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    more = {"tools": [{"name": "f"}], "chat_template_kwargs": {"short": True}, "system": "b"}
    file.write_text(json.dumps({"messages": [USER], **more}) + "\n")
    [prompt] = read_prompts(None, file)
    assert prompt.content == [{"role": "system", "content": "b"}, USER]
    tokenizer = char_tokenizer()
    turns = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}"
    tokenizer.chat_template = "{{ tools[0].name if tools }}" + turns + "{{ 's' if short }}"
    assert ChatMode(True, template_kwargs={"short": False}).render_all([prompt], tokenizer) == ["f<s>b<u>cs"]


def test_a_system_prompt_needs_the_chat_template_and_half_a_character_is_refused(refused, plain: Path) -> None:
    with pytest.raises(ActshiftError, match="--system is a turn of a chat"):
        choose_chat(False, "Be brief.", [])
    for options in ((), ("--chat",)):
        line = refused("generate", "--adapter", plain, "--prompt", "w1 \udcc3", *options)
        assert "Prompt 1 contains U+DCC3" in line
