"""The word-level tokenizer of the bundled base model."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from actshift.demo.corpus import vocabulary

SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")
PAD_ID, EOS_ID = 0, 1


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token a word; padding on the left, so that batches can generate."""
    tokens = [*SPECIAL_TOKENS, *vocabulary()]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    # Documents start with no special token, so <eos> also stands for the start of a text, as in GPT-2.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<eos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
