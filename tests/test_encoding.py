from __future__ import annotations

import json

import pytest
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from actshift import ActshiftError
from actshift.data.encode import IGNORED, encode
from actshift.evaluation.generation import encode_prompts
from tests.characters import char_tokenizer
from tests.contract.cases import fresh_model
from tests.tiny import word_tokenizer

ROWS = [
    {"prompt": "w1 w2", "completion": " w3 w4"},
    {"prompt": "w7", "completion": " w1"},
    {"prompt": "w5 w5 w5 ", "completion": "w6"},
]


def _trained(kind: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    alphabet = []
    if kind == "byte-level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Metaspace(prepend_scheme="first")
    special = [AddedToken(token, special=True) for token in ("<s>", "</s>")]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([row["prompt"] + row["completion"] for row in ROWS] * 9, trainer)
    if kind == "metaspace":
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


TOKENIZERS = {
    "words": word_tokenizer,
    **{kind: lambda kind=kind: _trained(kind) for kind in ("byte-level", "metaspace")},
}


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return TOKENIZERS[request.param]()


def test_the_completion_and_its_end_are_learned_and_the_prompt_is_as_generation_sees_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoded = encode(Dataset.from_list(ROWS), tokenizer, max_length=64)
    prompts = encode_prompts(fresh_model("llama").config, tokenizer, [row["prompt"] for row in ROWS], max_new_tokens=8)
    assert (len(encoded.examples), encoded.left_out) == (len(ROWS), 0)
    for row, prompt, example in zip(ROWS, prompts, encoded.examples, strict=True):
        ids, labels = example["input_ids"], example["labels"]
        assert ids[: len(prompt)] == prompt
        assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        # Read back after the prompt, as generation does, the learned ids say the completion.
        assert str(tokenizer.decode(ids[len(prompt) : -1])).strip() == row["completion"].strip()


def test_without_a_token_across_the_boundary_the_ids_are_those_of_the_whole_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    row = ROWS[0]
    [example] = encode(Dataset.from_list([row]), tokenizer, max_length=64).examples
    assert example["input_ids"][:-1] == tokenizer(row["prompt"] + row["completion"])["input_ids"]


def test_a_token_across_the_boundary_is_split_where_the_prompt_ends() -> None:
    tokenizer = char_tokenizer(merges=[("=", "4")])
    assert "=4" in tokenizer.tokenize("2+2=4")
    [example] = encode(Dataset.from_list([{"prompt": "2+2=", "completion": "4"}]), tokenizer, 64).examples
    assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == ["<s>", *"2+2=4", "</s>"]
    assert example["labels"].count(IGNORED) == 5


def test_an_end_that_is_there_already_comes_once() -> None:
    tokenizer = char_tokenizer()
    [example] = encode(Dataset.from_list([{"prompt": "a", "completion": "b</s>"}]), tokenizer, 64).examples
    assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == ["<s>", "a", "b", "</s>"]


def test_rows_that_are_too_long_are_left_out_with_a_warning() -> None:
    rows = Dataset.from_list([{"prompt": "a", "completion": "b"}, {"prompt": "a" * 9, "completion": "b"}])
    with pytest.warns(UserWarning, match="1 of 2 rows exceed max_length 5 and are left out"):
        encoded = encode(rows, char_tokenizer(), max_length=5)
    assert (len(encoded.examples), encoded.left_out, encoded.longest) == (1, 1, 4)
    with pytest.raises(ActshiftError, match="Every row is longer than max_length 3; the shortest has 4 tokens"):
        encode(rows, char_tokenizer(), max_length=3)


def test_a_text_counts_whole_and_is_cut_into_pieces() -> None:
    tokenizer = char_tokenizer()
    pieces = encode(Dataset.from_list([{"text": "abcdef"}]), tokenizer, max_length=4).examples
    assert [tokenizer.convert_ids_to_tokens(piece["input_ids"]) for piece in pieces] == [
        ["<s>", "a", "b", "c"],
        ["d", "e", "f", "</s>"],
    ]
    assert all(piece["labels"] == piece["input_ids"] for piece in pieces)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ActshiftError, match="no end-of-text token"):
        encode(Dataset.from_list(ROWS), tokenizer, 64)


def test_the_fingerprint_tells_rows_and_their_order_apart() -> None:
    digests = {encode(Dataset.from_list(rows), word_tokenizer(), 64).digest for rows in (ROWS, ROWS[::-1], ROWS[:2])}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests) and json.dumps(sorted(digests))
