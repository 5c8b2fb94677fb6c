"""The chat templates of real models, which TRL contains: prompts equal those of generation, and labels TRL's masks."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import PreTrainedTokenizerBase

from actshift import ActshiftError
from actshift.data import check_rows
from actshift.data.chat import render_turns
from actshift.data.encode import IGNORE_INDEX, encode
from tests.tokenizer_kinds import tokenizer_of

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.jinja")) if "training" not in path.stem]
PARTS_ONLY = ("idefics3", "llava_next", "smolvlm")  # they read a content only as a list of parts
TEXTS = [name for name in NAMES if name not in PARTS_ONLY]
ENDS = {"cohere": "<|END_OF_TURN_TOKEN|>", "deepseek": "<｜end▁of▁sentence｜>", "gptoss": "<|return|>"}
CHAT = [
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "end"},
    {"role": "user", "content": "And what else?"},
    {"role": "assistant", "content": "of 42 apples"},
]
trained = cache(tokenizer_of)


@cache
def tokenizer_with(name: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer with a template of TRL and its special tokens."""
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer: Any = deepcopy(trained("byte_level"))
    special = sorted(set(re.findall(r"<[|｜][^|｜<>]+[|｜]>|<\|\w+>|<\w+\|>|<(?:start|end)_of_\w+>", template)))
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.eos_token = next((end for start, end in ENDS.items() if name.startswith(start)), None) or (
        "<|im_end|>" if "<|im_end|>" in special else "</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def rows_of(messages: list[dict]) -> Any:
    return check_rows([{"messages": messages}], "rows", [("messages",)])


@pytest.mark.parametrize("name", TEXTS)
def test_every_turn_follows_the_prompt_of_generation_and_ends(name: str) -> None:
    tokenizer = tokenizer_with(name)
    turns = render_turns(rows_of(CHAT), tokenizer, every=True)[0]
    for turn, index in zip(turns, (1, 3), strict=True):
        assert turn.prompt == tokenizer.apply_chat_template(CHAT[:index], tokenize=False, add_generation_prompt=True)
        before, _, after = turn.completion.partition(CHAT[index]["content"])
        assert re.fullmatch(r"(\s*(<think>)?\s*</think>\s*)?|(<\|channel\|>final| to=user)<\|message\|>", before)
        if tokenizer.eos_token == "</s>" and name != "glm4moe":  # others end with the end-of-text token
            assert re.fullmatch(r"<[\w|]+>\s*|<\|END_RESPONSE\|>", after)


@pytest.mark.parametrize("name", [name for name in TEXTS if (FOLDER / f"{name}_training.jinja").is_file()])
def test_labels_are_the_assistants_tokens_of_trls_training_template(name: str) -> None:
    tokenizer = tokenizer_with(name)
    template = (FOLDER / f"{name}_training.jinja").read_text(encoding="utf-8")
    output: Any = tokenizer.apply_chat_template(
        CHAT, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    expected = segments(tokenizer, output["input_ids"], output["assistant_masks"])
    examples = encode(rows_of(CHAT), tokenizer, 10_000, turns="joined").examples
    learned = [
        text
        for example in examples
        for text in segments(tokenizer, example["input_ids"], [label != IGNORE_INDEX for label in example["labels"]])
    ]
    # TRL's masks begin with parts of the prompt and end with white space. GLM ends a turn by the next one, gpt-oss
    # writes another end in the middle of a chat, and ours add the end-of-text token.
    ends = re.compile(r"(</s>|<\|user\|>|<\|end\|>|<\|return\|>)$")
    for ours, theirs in zip(learned, expected, strict=True):
        ours, theirs = (ends.sub("", text.removesuffix("</s>").rstrip()) for text in (ours, theirs))
        assert theirs.endswith(ours) and len(ours) >= len("end")


def segments(tokenizer: PreTrainedTokenizerBase, ids: list[int], mask: list[bool]) -> list[str]:
    """Return the texts of the runs of tokens whose mask is true."""
    runs: list[list[int]] = [[]]
    for token, counts in zip(ids, mask, strict=True):
        if counts:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [str(tokenizer.decode(run)) for run in runs if run]


@pytest.mark.parametrize("name", PARTS_ONLY)
def test_a_template_that_reads_no_text_is_refused(name: str) -> None:
    with pytest.raises(
        ActshiftError, match=r"does not write the text of an answer in row 1|rejects the messages of row 1"
    ):
        render_turns(rows_of(CHAT), tokenizer_with(name), every=True)


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        ("qwen3", "<think>\nso\n</think>\n\n2"),
        ("qwen3_5_think", "so\n</think>\n\n2"),
        ("qwen3_6", "so\n</think>\n\n2"),
        ("qwen3_8", "so\n</think>\n\n2"),
        ("deepseek_r1_distill", "so\n</think>\n\n2"),
        ("deepseekv3", "so\n</think>\n\n2"),
        ("nemotron_3_nano", "so\n</think>\n\n2"),
        ("glm4moe", "\n<think>so</think>\n2"),
        ("llama3", "<think>\nso\n</think>\n\n2<|eot_id|>"),
    ],
)
def test_reasoning_in_a_content_is_learned_once(name: str, completion: str) -> None:
    answer = {"role": "assistant", "content": "<think>\nso\n</think>\n\n2"}
    [turn] = render_turns(rows_of([CHAT[0], answer]), tokenizer_with(name), every=True)[0]
    assert turn.completion == completion and (turn.prompt + completion).count("<think>") == 1


def test_thinking_can_be_switched_off_for_a_row() -> None:
    row = {"messages": CHAT[:2], "chat_template_kwargs": {"enable_thinking": False}}
    [[turn]] = render_turns(check_rows([row], "rows", [("messages",)]), tokenizer_with("qwen3"), every=True)
    assert turn.prompt.endswith("<think>\n\n</think>\n\n") and turn.completion == "end"
