from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from actshift import ActshiftError, token_batches
from tests.tiny import word_tokenizer


def test_labels_are_the_completions_tokens_and_rows_keep_their_order():
    rows = [{"prompt": "w1 w2", "completion": " w3"}, {"prompt": "w4", "completion": " w5"}]
    first, second = token_batches(rows, word_tokenizer(), batch_size=1)
    assert (first["labels"][0, :2] == -100).all() and first["labels"][0, 2:].tolist() == first["input_ids"][
        0, 2:
    ].tolist()
    assert second["labels"][0, 0] == -100 and second["input_ids"].shape == (1, 3)
    [together] = token_batches(Dataset.from_list(rows), word_tokenizer())
    assert together["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert torch.equal(together["input_ids"][:1], first["input_ids"])
    assert together["labels"][1, 3] == -100


def test_texts_have_no_labels_if_the_tokenizer_has_no_end_of_text_token():
    tokenizer = word_tokenizer(eos_token=None, pad_token="<pad>")
    [batch] = token_batches(["w1 w2", "w3"], tokenizer)
    assert set(batch) == {"input_ids", "attention_mask"} and batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are no rows"),
        (["w1", {"text": "w1"}], "Rows must be texts, or mappings"),
        ([""], "No row has a token to predict"),
    ],
)
def test_unusable_rows_are_rejected(rows, message):
    with pytest.raises(ActshiftError, match=message):
        token_batches(rows, word_tokenizer())


def test_texts_become_batches():
    batches = token_batches(["w1 w2 w3", "w4", "w5 w6"], word_tokenizer(pad_token="<pad>"), batch_size=2)
    assert [batch["input_ids"].tolist() for batch in batches] == [[[4, 5, 6, 2], [7, 2, 0, 0]], [[8, 9, 2]]]
    assert batches[0]["labels"].tolist() == [[4, 5, 6, 2], [7, 2, -100, -100]]
    assert batches[0]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    [pair] = token_batches([{"prompt": "w1 w2", "completion": "w3"}], word_tokenizer())
    assert pair["labels"].tolist() == [[-100, -100, 6, 2]]


@pytest.mark.parametrize(("rows", "message"), [([], "There are no rows"), ([3], "Rows must be texts")])
def test_empty_or_invalid_rows_are_refused(rows, message):
    with pytest.raises(ActshiftError, match=message):
        token_batches(rows, word_tokenizer())
