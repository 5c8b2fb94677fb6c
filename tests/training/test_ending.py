from __future__ import annotations

import warnings

import pytest
import torch

from actshift.training.fit import warn_of_unknown_end
from tests.characters import char_tokenizer
from tests.zoo import ARCHITECTURES


@pytest.fixture
def frozen():
    return ARCHITECTURES["llama"]().requires_grad_(False)


def test_an_end_like_other_unseen_tokens_is_told(frozen):
    rows = frozen.get_output_embeddings().weight
    with torch.no_grad():
        rows[[60, 70]] = rows[2] * 1.0001
    with pytest.warns(UserWarning, match="cannot distinguish its end-of-text token '</s>' from 2 others"):
        warn_of_unknown_end(frozen, char_tokenizer())
    rows.requires_grad_(True)  # what is trained can be told apart
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_end(frozen, char_tokenizer())


def test_an_end_of_its_own_is_no_matter(frozen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_end(frozen, char_tokenizer())
