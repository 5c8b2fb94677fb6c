"""Token ids and labels of each kind of row."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from actshift import ActshiftError
from actshift.data.encode import IGNORE_INDEX, class_names, encode
from actshift.data.pairs import split_pair
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


def test_labels_cover_the_completion_and_its_end_and_the_prompt_equals_that_of_generation(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoded = encode(Dataset.from_list(ROWS), tokenizer, max_length=64)
    prompts = encode_prompts(fresh_model("llama").config, tokenizer, [row["prompt"] for row in ROWS], max_new_tokens=8)
    assert (len(encoded.examples), encoded.left_out) == (len(ROWS), 0)
    for row, prompt, example in zip(ROWS, prompts, encoded.examples, strict=True):
        ids, labels = example["input_ids"], example["labels"]
        assert ids[: len(prompt)] == prompt
        assert labels == [IGNORE_INDEX] * len(prompt) + ids[len(prompt) :]
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert str(tokenizer.decode(ids[len(prompt) : -1])).strip() == row["completion"].strip()


def test_ids_equal_those_of_the_whole_text_if_no_token_spans_the_boundary(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    row = ROWS[0]
    [example] = encode(Dataset.from_list([row]), tokenizer, max_length=64).examples
    assert example["input_ids"][:-1] == tokenizer(row["prompt"] + row["completion"])["input_ids"]


def test_a_token_that_spans_the_boundary_is_split_at_the_end_of_the_prompt() -> None:
    tokenizer = char_tokenizer(merges=[("=", "4")])
    assert "=4" in tokenizer.tokenize("2+2=4")
    [example] = encode(Dataset.from_list([{"prompt": "2+2=", "completion": "4"}]), tokenizer, 64).examples
    assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == ["<s>", *"2+2=4", "</s>"]
    assert example["labels"].count(IGNORE_INDEX) == 5


def test_an_end_token_in_the_completion_is_not_repeated() -> None:
    tokenizer = char_tokenizer()
    [example] = encode(Dataset.from_list([{"prompt": "a", "completion": "b</s>"}]), tokenizer, 64).examples
    assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == ["<s>", "a", "b", "</s>"]


def test_long_rows_are_skipped_with_a_warning() -> None:
    rows = Dataset.from_list([{"prompt": "a", "completion": "b"}, {"prompt": "a" * 9, "completion": "b"}])
    with pytest.warns(UserWarning, match="1 of 2 rows exceed max_length 5 and are left out"):
        encoded = encode(rows, char_tokenizer(), max_length=5)
    assert (len(encoded.examples), encoded.left_out, encoded.longest) == (1, 1, 4)
    with pytest.raises(ActshiftError, match="Every row is longer than max_length 3; the shortest has 4 tokens"):
        encode(rows, char_tokenizer(), max_length=3)


def test_a_long_text_is_split_into_pieces_that_are_learned_whole() -> None:
    tokenizer = char_tokenizer()
    pieces = encode(Dataset.from_list([{"text": "abcdef"}]), tokenizer, max_length=4).examples
    assert [tokenizer.convert_ids_to_tokens(piece["input_ids"]) for piece in pieces] == [
        ["<s>", "a", "b", "c"],
        ["d", "e", "f", "</s>"],
    ]
    assert all(piece["labels"] == piece["input_ids"] for piece in pieces)


def test_a_tokenizer_without_an_end_token_raises() -> None:
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ActshiftError, match="no end-of-text token"):
        encode(Dataset.from_list(ROWS), tokenizer, 64)


def test_the_digest_depends_on_the_rows_and_their_order() -> None:
    digests = {encode(Dataset.from_list(rows), word_tokenizer(), 64).digest for rows in (ROWS, ROWS[::-1], ROWS[:2])}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests) and json.dumps(sorted(digests))


def test_classes_are_indices_of_their_labels() -> None:
    rows = Dataset.from_list([{"text": "w1 w2", "label": "b"}, {"text": "w3", "label": "a"}])
    encoded = encode(rows, word_tokenizer(), 64, class_names(rows))
    assert [example["labels"] for example in encoded.examples] == [1, 0]
    with pytest.raises(ActshiftError, match=r"Row 1 has the label 'b'.*; the model knows a, c"):
        encode(rows, word_tokenizer(), 64, ("a", "c"))


def test_long_texts_of_a_classifier_are_truncated_with_a_warning() -> None:
    rows = Dataset.from_list([{"text": "w1 w2 w3", "label": "a"}, {"text": "w1", "label": "a"}])
    with pytest.warns(UserWarning, match="1 of 2 rows exceed max_length 2 and are truncated"):
        encoded = encode(rows, word_tokenizer(), 2, ("a",))
    assert [len(example["input_ids"]) for example in encoded.examples] == [2, 1]


def test_pairs_are_tokenized_separately() -> None:
    rows = Dataset.from_list([{"text": "w1", "text_pair": "w2 w3"}])
    [example] = encode(rows, word_tokenizer(), 64).examples
    [first], [second] = (word_tokenizer()([text])["input_ids"] for text in ("w1", "w2 w3"))
    assert (example["input_ids"], example["pair_input_ids"]) == (first, second)
    assert [side["input_ids"] for side in split_pair(example)] == [first, second]


def test_a_tag_labels_the_first_token_of_its_word() -> None:
    rows = Dataset.from_list([{"tokens": ["ab", "c"], "tags": ["y", "x"]}])
    [example] = encode(rows, char_tokenizer(), 64, class_names(rows)).examples
    assert example["labels"] == [IGNORE_INDEX, 1, IGNORE_INDEX, 0]  # <s>, a, b, c
