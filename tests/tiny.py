"""Save tiny random models with a tokenizer, and adapters for them, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from actshift import SteeringConfig, attach
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES, VOCAB

WORDS = [f"w{number}" for number in range(VOCAB - 3)]


def word_tokenizer(**settings: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word that adds no special tokens. Ids 0 to 2 are padding, start and end."""
    words = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", *WORDS])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{"bos_token": "<bos>", "eos_token": "<eos>", **settings})


def save_model(folder: Path, name: str = "llama", **overrides: int) -> Path:
    """Save a model of the zoo with a tokenizer."""
    ARCHITECTURES[name](**overrides).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, **config: Any) -> Path:
    """Save an adapter with random weights for the model in `base`."""
    model = attach(AutoModelForCausalLM.from_pretrained(base), SteeringConfig(**config))
    randomise(model)
    model.save_pretrained(str(folder))
    return folder
