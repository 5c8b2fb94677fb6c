"""Batches are padded on the right, and masks mark the tokens."""

from __future__ import annotations

from actshift.data.collate import pad_batch
from actshift.data.encode import IGNORE_INDEX
from tests.characters import char_tokenizer


def test_each_field_is_padded_with_its_own_value() -> None:
    batch = pad_batch([{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7], "labels": [7]}], char_tokenizer())
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[5, 6], [7, 0]],
        "attention_mask": [[1, 1], [1, 0]],
        "labels": [[5, 6], [7, IGNORE_INDEX]],
    }


def test_the_sides_of_pairs_have_their_own_lengths_and_masks() -> None:
    examples = [{"input_ids": [5], "pair_input_ids": [6, 7]}, {"input_ids": [8], "pair_input_ids": [9]}]
    batch = pad_batch(examples, char_tokenizer())
    assert batch["pair_input_ids"].tolist() == [[6, 7], [9, 0]] and batch["input_ids"].tolist() == [[5], [8]]
    assert batch["pair_attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_one_number_per_example_becomes_a_vector() -> None:
    batch = pad_batch([{"input_ids": [5], "labels": 1}, {"input_ids": [6], "labels": 0}], char_tokenizer())
    assert batch["labels"].tolist() == [1, 0]
