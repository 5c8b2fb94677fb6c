"""Chat templates render messages, and the start token appears once."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import trl
from datasets import Dataset

from actshift import ActshiftError
from actshift.data import check_rows, to_prompt_completion, token_ids
from actshift.data.chat import render_turns
from actshift.data.template import Turn
from tests.characters import char_tokenizer

CHAT = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_chat_template_renders_prompt_and_completion() -> None:
    tokenizer = char_tokenizer()
    with pytest.raises(ActshiftError, match="has no chat template"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    tokenizer.chat_template = TEMPLATE
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>", "completion": "2"}


def test_rows_without_messages_are_returned_unchanged() -> None:
    pairs = Dataset.from_list([{"prompt": "1+1=", "completion": "2"}])
    assert to_prompt_completion(pairs, char_tokenizer()) is pairs


def test_the_prompt_is_the_one_of_generation_if_the_template_starts_an_answer_differently() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("<a>{%", "<a>?{%")
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>?", "completion": "2"}


def test_an_error_of_the_template_names_the_row() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ActshiftError, match="rejects the messages of row 1: roles must alternate"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)


def test_the_start_token_appears_once() -> None:
    tokenizer = char_tokenizer()
    assert token_ids(tokenizer, ["<s>1", "1"]) == token_ids(tokenizer, ["1", "1"])
    assert token_ids(tokenizer, ["1"])[0][0] == tokenizer.bos_token_id


HEADS = "{% for m in messages %}{% if m.role == 'assistant' %}<A>ANSWER<|end|>\n{% else %}<U>{{ m.content }}{% endif %}"
THINKS = HEADS + "{% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}"
SHOWN = {
    "whole": "{{ m.content }}",
    "trimmed": "{{ m.content | trim }}",
    "without reasoning": "{{ m.content.split('</think>')[-1] }}",
    "upper case": "{{ m.content | upper }}",
    "replaced": "{{ m.content | replace('e', 'i') }}",
    "opened anyway": "<think>\n\n</think>\n\n{{ m.content }}",
}
ANSWERS = ["yes", "end", "of", "e", "|", "<|end|>", "q", "<U>q", "think", " yes\n", "ja · é 🙂", "1,234", "{{ x }}"]


def turns_of(template: str | dict[str, str], *messages: dict, every: bool = False, **row: object) -> list[Turn]:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = template
    rows = check_rows([{"messages": [*messages], **row}], "rows", [("messages",)])
    return render_turns(rows, tokenizer, every)[0]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str, **more: object) -> dict:
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("shown", SHOWN)
def test_an_answer_is_found_behind_a_prompt_that_opens_a_thinking_tag(shown: str, answer: str) -> None:
    [turn] = turns_of(THINKS.replace("ANSWER", SHOWN[shown]), user("q"), assistant(answer))
    change = {"trimmed": str.strip, "upper case": str.upper, "replaced": lambda text: text.replace("e", "i")}
    expected = change.get(shown, str)(answer) + "<|end|>\n"
    assert turn == ("<U>q<A><think>\n", "\n</think>\n\n" + expected if shown == "opened anyway" else expected)


REASONED = "<think>\nso\n</think>\n\n2"


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("shown", ["whole", "trimmed", "without reasoning", "opened anyway"])
@pytest.mark.parametrize("content", [REASONED, "<think>so</think>2", f"  {REASONED}  "])
def test_reasoning_in_a_content_is_learned_once(opens: bool, shown: str, content: str) -> None:
    template = THINKS if opens else THINKS.replace("<A><think>\n{", "<A>{")
    if shown == "opened anyway" and not opens:
        return  # the template writes two thoughts, and nothing says which is meant
    [turn] = turns_of(template.replace("ANSWER", SHOWN[shown]), user("q"), assistant(content))
    text = turn.prompt + turn.completion
    assert turn.prompt == ("<U>q<A><think>\n" if opens else "<U>q<A>")
    assert (text.count("<think>"), text.count("</think>")) == (1, 1)
    assert text.endswith(("2<|end|>\n", "2  <|end|>\n")) and "so" in turn.completion


def test_reasoning_that_is_dropped_or_excluded_by_the_prompt_is_refused() -> None:
    without = THINKS.replace("ANSWER", SHOWN["without reasoning"])
    with pytest.raises(ActshiftError, match="does not write the reasoning_content of an answer in row 1"):
        turns_of(without, user("q"), assistant("2", reasoning_content="so"))
    closed = without.replace("<think>\n{%", "<think>\n\n</think>\n\n{%")
    assert turns_of(closed, user("q"), assistant("2"))[0].completion == "2<|end|>\n"
    with pytest.raises(ActshiftError, match="does not continue its own prompt with the answer in row 1"):
        turns_of(closed, user("q"), assistant(REASONED))


@pytest.mark.parametrize("shown", ["", "{{ m.content | length }}", "{{ m.content[0].text }}", "end of an answer"])
def test_an_answer_that_the_template_does_not_write_is_refused(shown: str) -> None:
    with pytest.raises(ActshiftError, match="does not write the text of an answer in row 1"):
        turns_of(THINKS.replace("ANSWER", shown), user("q"), assistant("end"))


CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
BAD_CALL = {"function": {"name": "f", "arguments": "{"}}
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}"
TOOLS = "{% if tools %}[{{ tools | map(attribute='name') | join }}]{% endif %}"
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + CALLS + "{% endfor %}"
FULL = TOOLS + "{{ style }}" + TURNS + "{% if add_generation_prompt %}<assistant>{% endif %}"
CHATS = [user("1+1"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "2"}, assistant("two")]


def test_tools_template_arguments_and_calls_reach_the_template() -> None:
    first, last = turns_of(FULL, *CHATS, every=True, tools=[{"name": "add"}], chat_template_kwargs={"style": "!"})
    assert first == ("[add]!<user>1+1<assistant>", 'add({"a": 1})')
    assert last == ('[add]!<user>1+1<assistant>add({"a": 1})<tool>2<assistant>', "two")
    named = {"default": TURNS, "tool_use": FULL}
    assert turns_of(named, *CHATS, tools=[{"name": "add"}])[0].prompt.startswith("[add]<user>")
    assert turns_of(named, user("q"), assistant("a"), tools=[])[0].prompt == "<user>q"
    with_text = FULL.replace("{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}")  # as DeepSeek's
    assert turns_of(with_text, *CHATS)[0].prompt.startswith('<user>1+1<assistant>add({"a": 1})')


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (TURNS, {"tools": [{"name": "add"}]}, "does not use the tools of row 1. Leave them out"),
        (FULL, {"chat_template_kwargs": {"stile": 1}}, r"does not use the stile of row 1 \(did you mean 'style'\?\)"),
        (FULL, {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "does not use the chat_template of row 1"),
        (FULL, {"chat_template_kwargs": {"padding": True}}, "does not use the padding of row 1"),
        (FULL.replace(CALLS, ""), {"messages": CHATS}, "does not use the tool_calls of row 1"),
        (FULL.replace("in messages", "in messages if m.role != 'tool'"), {"messages": CHATS}, "the results of tools"),
        (FULL, {"messages": [user("q"), assistant("", tool_calls=[BAD_CALL]), *CHATS]}, "'f' in row 1 are not valid"),
        ("{{ raise_exception('no') }}", {}, "rejects the messages of row 1: no."),
        ("{{ messages[7].content.x }}", {}, "rejects the messages of row 1: .*has no"),
        ("{{ messages + 1 }}", {}, "rejects the messages of row 1: can only concatenate list"),
        ("{{ 1 / 0 }}", {}, "rejects the messages of row 1: division by zero"),
        ("{{ ''.__class__.__mro__ }}", {}, "rejects the messages of row 1: access to attribute '__class__'"),
        ("{{ 'a' * 10 ** 15 }}", {}, "rejects the messages of row 1: MemoryError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {}, "rejects the messages of row 1: maximum recursion"),
        ("{% for", {}, "rejects the messages of row 1: unexpected 'end of template'"),
        ({"rag": FULL}, {}, "rejects the messages of row 1: .*multiple chat templates"),
    ],
)  # fmt: skip
def test_what_a_template_ignores_or_raises_is_an_error_with_the_row(template, row: dict, message: str) -> None:
    messages = row.pop("messages", [user("q"), assistant("a")])
    with pytest.raises(ActshiftError, match=message) as caught:
        turns_of(template, *messages, **row)
    assert "\n" not in str(caught.value)


def test_conversational_prompts_and_completions_are_rendered() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = TEMPLATE
    pair = {"prompt": [user("1"), assistant("x"), user("2")], "completion": [assistant("a"), user("3"), assistant("b")]}
    rows = check_rows([pair], "rows")
    assert [turn.completion for turn in render_turns(rows, tokenizer, every=True)[0]] == ["a", "b"]
    [alone] = to_prompt_completion(check_rows([{"prompt": [user("1")]}], "rows", [("prompt",)]), tokenizer)
    assert alone == {"prompt": "<u>1\n<a>"}


def test_a_first_turn_of_the_assistant_is_context() -> None:
    template = FULL.replace("{{ style }}", "")
    [turn] = turns_of(template, assistant("hi"), user("q"), assistant("a"), every=True)
    assert turn == ("<assistant>hi<user>q<assistant>", "a")


def test_a_lone_surrogate_is_one_clear_line() -> None:
    with pytest.raises(
        ActshiftError, match=r"Text 2 contains U\+D83D after 1 characters, which is half of a character"
    ):
        token_ids(char_tokenizer(), ["a", "b\ud83d"])


EMPTY_THOUGHTS = ["<think>\n\n</think>\n\nyes", "<think></think>yes", "<think>\n</think>\nyes"]
QWEN = Path(trl.__file__).with_name("chat_templates") / "qwen3.jinja"


@pytest.mark.parametrize("content", EMPTY_THOUGHTS)
def test_an_empty_thought_is_written_once(content: str) -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = QWEN.read_text("utf-8")
    chat = {"messages": [user("q"), assistant(content)]}
    [[turn]] = render_turns(check_rows([chat], "rows"), tokenizer, every=True)
    assert turn.completion == "<think>\n\n</think>\n\nyes<|im_end|>\n"
    chat["chat_template_kwargs"] = {"enable_thinking": False}
    [[turn]] = render_turns(check_rows([chat], "rows"), tokenizer, every=True)
    assert turn.prompt.endswith("<think>\n\n</think>\n\n")
    assert turn.completion == "yes<|im_end|>\n"


@pytest.mark.parametrize("content", EMPTY_THOUGHTS)
def test_an_empty_thought_that_the_prompt_opens_is_closed_once(content: str) -> None:
    [turn] = turns_of(THINKS.replace("ANSWER", SHOWN["opened anyway"]), user("q"), assistant(content))
    assert (turn.prompt + turn.completion).count("<think>") == 1
    assert turn.completion.endswith("yes<|end|>\n")


@pytest.mark.parametrize("answer", ["a" * 60, "abcdefghij" * 3, "<think>" + "r" * 50 + "</think>" + "a" * 50])
def test_a_template_that_cuts_off_the_end_of_an_answer_is_refused(answer: str) -> None:
    with pytest.raises(ActshiftError, match="row 1"):
        turns_of(THINKS.replace("ANSWER", "{{ m.content[:20] }}"), user("q"), assistant(answer))


def test_a_template_that_drops_the_system_turn_is_refused() -> None:
    template = TEMPLATE.replace("<{{ m.role[0] }}>{{ m.content }}", "{{ m.content if m.role != 'system' else '' }}")
    template = template.replace("\n{% endfor %}", "{% endfor %}")
    with pytest.raises(ActshiftError, match="does not use the system turn of row 1"):
        turns_of(template, {"role": "system", "content": "be brief"}, user("q"), assistant("yes"))


@pytest.mark.parametrize("key", ["name", "prefix"])
def test_a_key_of_a_turn_that_a_template_does_not_use_warns(key: str) -> None:
    turns = [{**user("q"), key: "x"}, assistant("yes")]
    with pytest.warns(UserWarning, match=f"does not use the {key} of turns, as in row 1"):
        assert turns_of(TEMPLATE, *turns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uses = TEMPLATE.replace("{{ m.role[0] }}", f"{{{{ m.role[0] }}}}{{{{ m.{key} if m.role == 'user' }}}}")
        assert turns_of(uses, *turns)[0].prompt == "<ux>q\n<a>"


@pytest.mark.parametrize("arguments", ['{"a": 1, "a": 2}', "{a}"])
def test_arguments_that_are_not_valid_json_are_refused(arguments: str) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [user("q"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(ActshiftError, match="tool call 'f' in row 1 are not valid JSON"):
        turns_of("{{ messages[-1].tool_calls }}", *turns, {"role": "tool", "content": "3"}, assistant("yes"))
