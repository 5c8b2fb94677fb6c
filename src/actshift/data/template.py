"""Render chats with the chat template of a tokenizer, and find the completion of an answer in the rendered text."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import signature
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from actshift.data.json_text import parse_json
from actshift.errors import ActshiftError, did_you_mean, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]  # with `role`, `content`, and what else a chat template reads, such as `tool_calls`
_CLOSING_TAG = re.compile(r"</\w+>|\[/\w+\]")
_OPEN_TAG = re.compile(r"[<\[]\|?[\w:]*(?:think|thought|reason)\w*\|?[>\]]\s*\Z", re.IGNORECASE)
_SYSTEM = ("system", "developer")
_TURN_KEYS = ("name", "prefix")  # of other turns than a tool's: the speaker, and whether to continue the text
_REASONING = ("reasoning_content", "reasoning", "thinking")


class Turn(NamedTuple):
    """An assistant's turn as text: the prompt of its generation, and the completion without the end-of-text token."""

    prompt: str
    completion: str


class ChatTemplate:
    """The chat template of a tokenizer with the tools and chat_template_kwargs of one chat, called `place`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], place: str, learned: bool = True
    ) -> None:
        self.tokenizer, self.place, self.learned = tokenizer, place, learned
        tools = row.get("tools")
        self.tools: Any = (parse_json(tools) if isinstance(tools, str) else tools) or None  # [] writes an empty frame
        self.options: dict[str, Any] = row.get("chat_template_kwargs") or {}
        self.wants_text = False  # for the arguments of tool calls, instead of objects

    def features(self, messages: Sequence[Message]) -> set[str]:
        """Return the names of everything in a chat that a template may ignore."""
        calls = any(turn.get("tool_calls") for turn in messages)
        results = any(turn.get("role") == "tool" for turn in messages)
        system = len(messages) > 1 and any(turn.get("role") in _SYSTEM for turn in messages)
        given = {"tools": self.tools, "tool_calls": calls, "results of tools": results, "system turn": system}
        for key in _TURN_KEYS:
            given[f"{key} of a turn"] = any(turn.get(key) for turn in messages if turn.get("role") != "tool")
        return {*self.options, *(name for name, value in given.items() if value)}

    def check_used(self, messages: Sequence[Message], features: set[str]) -> None:
        """Raise ActshiftError if the template ignores one of the chat's features; only warn of `_TURN_KEYS`."""
        chat = self._render(messages)
        words = set(re.findall(r"\w+", self.tokenizer.get_chat_template(tools=self.tools)))
        without = [_without(turn, "tool_calls") for turn in messages]
        texts = [turn.get("content") for turn in messages if turn.get("role") == "tool"]
        reserved = {"messages", *signature(self.tokenizer.apply_chat_template).parameters} - {"documents"}
        unused = [name for name in self.options if name not in words or name in reserved]
        turns = [turn for turn in messages if turn.get("role") not in _SYSTEM]
        others = {"tools": (messages, None), "tool_calls": (without, self.tools), "system turn": (turns, self.tools)}
        for name, rendering in others.items():
            with suppress(ActshiftError):  # a template that refuses to go without does use it
                if name in features and chat == self._render(rendering[0], tools=rendering[1]):
                    unused.append(name)
        if any(isinstance(text, str) and text.strip() not in chat for text in texts):
            unused.append("results of tools")
        if unused:
            hint = did_you_mean(unused[0], words - {unused[0]}) if unused[0] in self.options else ""
            problem = f"The chat template does not use the {unused[0]} of {self.place}{hint}"
            raise ActshiftError(f"{problem}. Leave them out, or use a model whose template does.")
        for key in _TURN_KEYS:
            if f"{key} of a turn" in features and chat == self._render([_without(turn, key) for turn in messages]):
                warnings.warn(f"The chat template does not use the {key} of turns, as in {self.place}.", stacklevel=3)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return messages with the start of an answer."""
        return self._render(messages, add_generation_prompt=True)

    def turn(self, history: Sequence[Message], answer: Message) -> Turn:
        """Return the prompt of an answer, exactly as in generation, and its completion."""
        prompt = self.prompt(history)
        completion = self._completion(prompt, history, answer)
        reasoning = [name for name in _REASONING if isinstance(answer.get(name), str) and answer[name].strip()]
        if reasoning and all(answer[name].strip() not in completion for name in reasoning):
            raise self._refusal(f"does not write the {reasoning[0]} of an answer", "Write it into the content")
        if end := cast("str | None", self.tokenizer.eos_token):
            before_end, match, after_end = completion.rpartition(end)
            completion = before_end if match and not after_end.strip() else completion
        return Turn(prompt, completion)

    def _completion(self, prompt: str, history: Sequence[Message], answer: Message) -> str:
        """Return the text from the end of the prompt to the end of the turn.

        It is the rest of the finished chat, if this continues the prompt and contains the whole answer. Otherwise a
        second rendering, with a sentinel in place of the answer, shows the text around it. That happens if the prompt
        opens a thinking tag that a finished turn lacks, or if the template drops or changes a part of the answer.
        """
        chat, content = self._render([*history, answer]), answer.get("content") or ""
        rest = chat[len(prompt) :] if chat.startswith(prompt) else None
        if not isinstance(content, str):
            content = ""
        if rest == "" and not self.learned:
            return content
        tag = thinking.group() if (thinking := _OPEN_TAG.search(prompt)) else ""
        doubles = bool(tag) and content.lstrip().startswith(tag.strip())
        if (
            rest is not None
            and not doubles
            and (not content.strip() or (len(content) > 40 and content.strip() in rest))
        ):
            return rest  # a short answer may be a part of the template's own words
        frame = self._frame(history, answer, chat)
        if frame is None and rest is not None:
            return rest
        if frame is not None:
            opening, shown, closing = frame
            if shown.strip() != content.strip() and shown.strip() and content.strip().startswith(shown.strip()):
                raise self._refusal("cuts off the end of an answer", "Shorten the answer")
            dropped = _dropped_start(content.strip(), shown.strip())
            if dropped and _without_space(prompt).endswith(_without_space(dropped)):  # an empty thinking block
                dropped, doubles = "", False
            rewritten = dropped and rest is not None and _after(tag + rest, dropped) is not None
            if rest is not None and (rewritten or (not dropped and not doubles)):
                return rest
            lead, opened = _compare_starts(prompt, opening, self._render(history), _text_of(history[-1]))
            restorable = not lead and _CLOSING_TAG.search(dropped) and not _CLOSING_TAG.search(opened)
            if lead is not None and (not dropped or restorable):
                body = dropped + shown.lstrip() if dropped else shown
                return _without_tag(body, tag) + closing if doubles else lead + body + closing
        raise self._refusal("does not continue its own prompt with the answer", "Change the answer")

    def _frame(self, history: Sequence[Message], answer: Message, chat: str) -> tuple[str, str, str] | None:
        """Return the finished `chat` as the text before the answer, the answer, and the text after it, or None."""
        # Digits survive what templates do to a text: strip, split, upper, escape.
        sentinel = next(digits for digits in map(str, count(481516234208)) if digits not in chat)
        opening, *rest = self._render([*history, {**answer, "content": sentinel}]).split(sentinel)
        if not rest:
            raise self._refusal("does not write the text of an answer", "Write it as the template reads it")
        if len(rest) != 1 or not chat.startswith(opening) or not chat[len(opening) :].endswith(rest[0]):
            return None
        return opening, chat[len(opening) : len(chat) - len(rest[0])], rest[0]

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        """Return messages in the chat template. Raise ActshiftError for whatever the template raises."""
        options = {"tools": self.tools, **self.options, **options, "tokenize": False}
        try:
            try:
                turns = [self._with_arguments(turn, as_text=self.wants_text) for turn in messages]
                return cast(str, self.tokenizer.apply_chat_template(cast(Any, turns), **options))
            except TypeError:  # DeepSeek's templates add the arguments of a tool call to a text
                if self.wants_text or not any(turn.get("tool_calls") for turn in messages):
                    raise
                turns = [self._with_arguments(turn, as_text=True) for turn in messages]
                text = cast(str, self.tokenizer.apply_chat_template(cast(Any, turns), **options))
                self.wants_text = True
                return text
        except ActshiftError:
            raise
        except Exception as error:  # a template is a program, and can raise anything
            reason = first_line(error).rstrip(".")
            raise ActshiftError(f"The chat template rejects the messages of {self.place}: {reason}.") from error

    def _with_arguments(self, turn: Message, as_text: bool) -> Message:
        """Return a turn with the arguments of its tool calls as objects, or as JSON text."""
        if not (calls := turn.get("tool_calls")):
            return turn
        return {**turn, "tool_calls": [self._with_call(call, as_text) for call in calls]}

    def _with_call(self, call: Any, as_text: bool) -> Any:
        function = _function(call)
        arguments = function.get("arguments")
        if isinstance(arguments, str) and not as_text:
            try:
                arguments = parse_json(arguments) if arguments.strip() else {}
            except ValueError as error:
                problem = f"The arguments of the tool call {function.get('name')!r} in {self.place} are not valid JSON"
                reason = first_line(error).rstrip(".")
                raise ActshiftError(f"{problem} ({reason}): {arguments!r:.60}. Write them as an object.") from None
        elif isinstance(arguments, Mapping) and as_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        if arguments is function.get("arguments"):
            return call
        changed = {**function, "arguments": arguments}
        return {**call, "function": changed} if function is not call else changed

    def _refusal(self, problem: str, fix: str) -> ActshiftError:
        return ActshiftError(f"The chat template {problem} in {self.place}. {fix}, or use another chat template.")


def _without(turn: Message, key: str) -> Message:
    return {name: value for name, value in turn.items() if name != key}


def _function(call: Any) -> Any:
    """Return the name and arguments of a tool call, which OpenAI's format wraps once more."""
    inner = call.get("function") if isinstance(call, Mapping) else None
    return inner if isinstance(inner, Mapping) else call if isinstance(call, Mapping) else {}


def _compare_starts(prompt: str, opening: str, history: str, last: str) -> tuple[str | None, str]:
    """Compare the start of an answer in a generation prompt and in a finished chat (`opening`), ignoring white space.

    `history` is the chat before the answer, and `last` the content of its last turn.

    Returns:
        The text that only the finished chat has there, or None if both have different ones; and the text that only the
        prompt has, such as an opened thinking tag.

    >>> _compare_starts("<u>hi<a><think>", "<u>hi<a>", "<u>hi", "hi")
    ('', '<think>')
    >>> _compare_starts("<u>hi<a>", "<u>hi<b>", "<u>hi", "hi")
    (None, '')
    """
    common = _common_length(prompt, opening)
    if common < _common_length(prompt, history):  # Mistral's templates write the system prompt only before generation
        if not last or last not in prompt or last not in opening:
            return None, ""
        prompt, opening = prompt.rpartition(last)[2], opening.rpartition(last)[2]
        common = _common_length(prompt, opening)
    only_prompt, only_chat = prompt[common:], opening[common:]
    if (rest := _after(only_prompt, only_chat)) is not None:
        return "", rest
    return _after(only_chat, only_prompt), ""


def _text_of(turn: Message) -> str:
    return content.strip() if isinstance(content := turn.get("content"), str) else ""


def _common_length(text: str, other: str) -> int:
    differences = (index for index, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1])
    return next(differences, min(len(text), len(other)))


def _after(text: str, start: str) -> str | None:
    """Return what follows `start` in a text that begins with it, ignoring white space in both, or None."""
    match = re.match(r"\s*".join(["", *map(re.escape, _without_space(start))]), text)
    return text[match.end() :] if match else None


def _without_space(text: str) -> str:
    return re.sub(r"\s", "", text)


def _dropped_start(content: str, shown: str) -> str:
    """Return the start of the content that a chat template does not show, or "" if it shows all, perhaps changed."""
    return content[: len(content) - len(shown)] if content.endswith(shown) else ""


def _without_tag(text: str, opened: str) -> str:
    """Return an answer without the thinking tag at its start that the prompt `opened` already.

    >>> _without_tag("<think>\\nSo 2.</think> 2", "<think>\\n")
    'So 2.</think> 2'
    """
    tag, start = opened.strip(), text.lstrip()
    if not tag or not start.startswith(tag):
        return text
    return start[len(tag) :].removeprefix(opened[len(opened.rstrip()) :])
