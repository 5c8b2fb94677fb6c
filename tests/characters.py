"""Rows and a tiny random Llama with one token per character, for tests of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from tokenizers import Tokenizer, decoders, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.zoo import ARCHITECTURES, VOCAB

SPECIAL = ("<pad>", "<s>", "</s>")
CHARACTERS = f"{ascii_lowercase}{digits} +=.:?\nAQ<>|"


def char_tokenizer(merges: Iterable[tuple[str, str]] = (), starts: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per character and per merge. It adds `<s>` before a text if `starts`."""
    merges = list(merges)
    tokens = [*SPECIAL, *CHARACTERS, *(a + b for a, b in merges)]
    assert len(tokens) <= VOCAB
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<pad>"))
    backend.decoder = decoders.Fuse()  # no spaces between the tokens
    if starts:
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )


def save_model(folder: Path) -> Path:
    """Save the model and its tokenizer in `folder`, and return the folder."""
    ARCHITECTURES["llama"]().save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sums(count: int) -> list[dict[str, str]]:
    """Return `count` additions of two digits."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    return [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a, b in pairs[:count]]
