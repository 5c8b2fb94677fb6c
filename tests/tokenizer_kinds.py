"""Tiny tokenizers of the kinds that models use, trained on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "Question: How many apples are there? Answer: 42",
    "Question: Is the sky blue? Answer: yes",
    "What is 2+2=4 and 40+2=42? 1,234 apples, 7 pears. To be or not to be.",
    "\n",
    "un unable able reunite untied tied tie",
] * 9
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
START = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])

AS_TEXT = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
"""The decoder of SentencePiece: it joins bytes to characters and removes the space before a text."""


def sentencepiece_bpe() -> Tokenizer:
    """Return a tokenizer like Llama 2: a space before every text, and bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = AS_TEXT
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL + BYTES), START)


def sentencepiece_unigram() -> Tokenizer:
    """Return a tokenizer like T5 and XLNet, with a start token and bytes for unknown characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = AS_TEXT
    special = SPECIAL + BYTES
    trained = _trained(
        tokenizer, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>"), START
    )
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    trained.model = models.Unigram([tuple(piece) for piece in pieces], unk_id=0, byte_fallback=True)
    return trained


def bpe() -> Tokenizer:
    """Return a tokenizer like Gemma: plain BPE that keeps spaces and adds none before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL), START)


def byte_level() -> Tokenizer:
    """Return a tokenizer like GPT-2 and Qwen: bytes, split at spaces, without a start token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet))


def word_piece() -> Tokenizer:
    """Return a tokenizer like BERT: lower case, with a token before and after a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    around = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL), around)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    kind.__name__: kind for kind in (sentencepiece_bpe, sentencepiece_unigram, bpe, byte_level, word_piece)
}


def tokenizer_of(kind: str, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `KINDS` with the start token `<s>` and the end token `</s>`."""
    return PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=chat_template,
    )


def _trained(tokenizer: Tokenizer, trainer: object, post_processor: object = None) -> Tokenizer:
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer
