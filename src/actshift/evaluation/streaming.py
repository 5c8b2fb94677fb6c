"""Complete one prompt, passing the text on while it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase, TextStreamer

from actshift.evaluation.generation import evaluating, generation_config
from actshift.evaluation.prompts import encode_prompts, left_padded


class _Pieces(TextStreamer):
    """Hands finished words to `write`, where TextStreamer prints them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)  # type: ignore[arg-type]
        self.write = write
        self.pieces: list[str] = []

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.write(text)


def stream_completion(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    write: Callable[[str], object],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    add_special_tokens: bool = True,
) -> str:
    """Return the model's completion of `prompt`, and call `write` with each piece as soon as it is known.

    Of a prompt that exceeds the model's context the end is read, with a warning, so that a talk can go on.
    `add_special_tokens=False` is for a prompt that a chat template rendered.
    Raises ActshiftError for a number out of range, or an empty prompt.

    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> pieces = []
    >>> stream_completion(model, tokenizer, "MAX 3 7 =", pieces.append, max_new_tokens=4) == "".join(pieces)
    True
    """
    settings = generation_config(model, tokenizer, max_new_tokens, temperature)
    encoded = encode_prompts(model.config, tokenizer, [prompt], max_new_tokens, "truncate", add_special_tokens)
    streamer = _Pieces(tokenizer, write)
    with evaluating(model):
        inputs = left_padded(encoded, settings.pad_token_id, model.device)
        model.generate(**inputs, generation_config=settings, streamer=streamer)
    return "".join(streamer.pieces)
