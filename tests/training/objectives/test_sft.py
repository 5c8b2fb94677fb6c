"""Chats of several turns in supervised training, as the loss and the steered tokens need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset

from actshift import ActshiftError, SteeringConfig, attach
from actshift.data.collate import pad_batch
from actshift.data.encode import IGNORE_INDEX
from actshift.model_head import CAUSAL
from actshift.sites import Positions
from actshift.training import TrainSettings, fit
from actshift.training.objectives import OBJECTIVES
from tests.characters import char_tokenizer
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES

SFT = OBJECTIVES["sft"]
CHAT = [("user", "1+1"), ("assistant", "2"), ("user", "2+2"), ("assistant", "4")]
ROWS = Dataset.from_list([{"messages": [{"role": role, "content": content} for role, content in CHAT]}] * 2)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def tokenizer_of() -> Any:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def examples_of(config: Any = None, **settings: Any) -> list[dict[str, Any]]:
    return SFT.encode(ROWS, tokenizer_of(), TrainSettings(**settings), CAUSAL, config).examples


def text_of(example: dict[str, Any]) -> str:
    """Return the text of an example, with the tokens that count in the loss in brackets."""
    tokens = tokenizer_of().convert_ids_to_tokens(example["input_ids"])
    labels = example["labels"]
    return "".join(
        token if label == IGNORE_INDEX else f"[{token}]" for token, label in zip(tokens, labels, strict=True)
    )


def test_every_turn_counts_once_unless_only_the_last_one_is_to() -> None:
    whole = "<u>1+1<a>[2][</s>]<u>2+2<a>[4][</s>]"
    assert [text_of(example) for example in examples_of()] == [whole] * 2
    assert text_of(examples_of(loss="last")[0]) == "<u>1+1<a>2</s><u>2+2<a>[4][</s>]"
    assert text_of(examples_of(method="lora")[0]) == whole


@pytest.mark.parametrize("positions", ["prompt", "generated", "last", "ends"])
def test_an_adapter_of_some_tokens_sees_each_turn_with_its_own_prompt(positions: str) -> None:
    examples = examples_of(positions=positions)
    assert [text_of(example) for example in examples[:2]] == ["<u>1+1<a>[2][</s>]", "<u>1+1<a>2</s><u>2+2<a>[4][</s>]"]
    config = SteeringConfig(rank=1, positions=Positions.generated(), layers=[0])
    model, batch = attach(ARCHITECTURES["llama"](), config), pad_batch(examples[:2], tokenizer_of())
    randomise(model)
    steered = model(**batch, output_hidden_states=True).hidden_states[1]
    with model.disable_adapter():
        plain = model(**batch, output_hidden_states=True).hidden_states[1]
    changed = (steered != plain).any(-1)
    assert torch.equal(changed, batch["labels"] != IGNORE_INDEX)  # exactly the tokens of the turn


def test_fit_follows_the_adapter_of_the_model() -> None:
    for positions, rows in ((Positions.all(), 2), (Positions.prompt(), 4)):
        model = attach(ARCHITECTURES["llama"](), SteeringConfig(rank=1, positions=positions))
        assert fit(model, tokenizer_of(), ROWS, TrainSettings(max_steps=1)).rows == rows


def test_a_chat_beyond_the_context_is_refused_and_text_is_split_at_it() -> None:
    config = replace_context(12)
    with pytest.raises(ActshiftError, match="2 of 2 rows exceed the model's context of 12 tokens"):
        examples_of(config)
    text = Dataset.from_list([{"text": "a" * 30}])
    pieces = SFT.encode(text, tokenizer_of(), TrainSettings(), CAUSAL, config).examples
    assert [len(piece["input_ids"]) for piece in pieces] == [12, 12, 8]


def replace_context(size: int) -> Any:
    config = ARCHITECTURES["llama"]().config
    config.max_position_embeddings = size
    return config


def test_loss_belongs_to_supervised_training() -> None:
    with pytest.raises(
        ActshiftError, match="loss has no effect when objective is dpo; leave it out, or use objective sft"
    ):
        TrainSettings(objective="dpo", loss="last")
    assert replace(TrainSettings(), loss="last").loss == "last"
