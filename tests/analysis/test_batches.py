from __future__ import annotations

import pytest

from actshift import ActshiftError, token_batches
from tests.tiny import word_tokenizer


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
