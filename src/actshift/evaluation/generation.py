"""Complete prompts in batches: left-padded, sorted by length, and equal to completing them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer

from actshift.data.collate import padded
from actshift.errors import ActshiftError
from actshift.evaluation.prompts import encode_prompts, left_padded
from actshift.model_head import head_of


def generate_completions(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int = 64,
    batch_size: int = 16,
    *,
    temperature: float = 0.0,
    long_prompts: str = "refuse",
    add_special_tokens: bool = True,
    adapter_names: Sequence[str] | None = None,
    show_progress: bool = False,
) -> list[str]:
    """Return what the model writes after each prompt, in the order of the prompts, without special tokens.

    Greedy at `temperature` 0, else sampled at it. A completion ends at an end-of-sequence token or after
    `max_new_tokens`. `long_prompts` says what happens to a prompt that leaves no room for these in the model's
    context: "refuse" it, or "truncate" it from the left, with a warning. `add_special_tokens=False` is for prompts
    that a chat template rendered, with all the special tokens it wants.
    `adapter_names` gives each prompt its own adapter of a PeftModel, `"__base__"` for none, in one batch.

    Raises:
        ActshiftError: a number out of range, an empty prompt to which the tokenizer adds nothing, one that is too
            long, or more or fewer `adapter_names` than prompts.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> len(generate_completions(model, tokenizer, ["MAX 3 7 =", "MIN 3 7 ="], max_new_tokens=4))
        2
    """
    if batch_size < 1:
        raise ActshiftError(f"batch_size must be a whole number from 1 up, got {batch_size}.")
    if adapter_names is not None and len(adapter_names) != len(prompts):
        raise ActshiftError(
            f"adapter_names has {len(adapter_names)} entries for {len(prompts)} prompts; give each one."
        )
    settings = generation_config(model, tokenizer, max_new_tokens, temperature)
    encoded = encode_prompts(model.config, tokenizer, prompts, max_new_tokens, long_prompts, add_special_tokens)
    order = sorted(range(len(prompts)), key=lambda row: -len(encoded[row]))  # memory runs out at once or never
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    completions = [""] * len(prompts)
    screen = Console(stderr=True)
    with evaluating(model):
        shown = show_progress and screen.is_terminal
        for batch in track(batches, "Generating", console=screen, transient=True, disable=not shown):
            named = {} if adapter_names is None else {"adapter_names": [adapter_names[row] for row in batch]}
            inputs = left_padded([encoded[row] for row in batch], settings.pad_token_id, model.device)
            output = model.generate(**inputs, generation_config=settings, **named)
            for row, ids in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                completions[row] = _decode(tokenizer, ids, settings.eos_token_id)
    return completions


def generation_config(
    model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float = 0.0
) -> GenerationConfig:
    """Return the settings of a plain continuation, which the model's own (penalties, beams) cannot change.

    Sampling keeps the model's own top-k and top-p. Any token that the model or the tokenizer ends with ends.

    Raises:
        ActshiftError: a model that writes no text, `max_new_tokens` under 1, or a temperature that is negative or not
            finite.
    """
    if not model.can_generate():
        raise ActshiftError(
            f"This model writes no text: its head is {head_of(model) or 'of another kind'}. 'actshift eval' scores it "
            "on rows with labels."
        )
    if max_new_tokens < 1:
        raise ActshiftError(f"max_new_tokens must be a whole number from 1 up, got {max_new_tokens}.")
    if not 0 <= temperature < float("inf"):
        raise ActshiftError(f"temperature must be 0 (greedy) or a positive number such as 0.7, got {temperature}.")
    own = model.generation_config.eos_token_id
    named: list[Any] = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    ends = sorted({end for end in named if end is not None})
    pad = next((i for i in (tokenizer.pad_token_id, *ends) if i is not None), 0)  # masked, so any will do
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Hold the model in evaluation mode, without gradients, and put its former mode back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: list[int] | None) -> str:
    stop = next((at for at, token in enumerate(ids) if token in (ends or ())), len(ids))
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return text if isinstance(text, str) else "".join(text)


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


def forward(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping[str, Any]],
    batch_size: int = 16,
    show_progress: bool = False,
) -> Iterator[tuple[list[int], Mapping[str, Tensor], Any]]:
    """Yield batch by batch the numbers of its examples, its inputs (padded on the right), and the model's output.

    The longest come first: memory runs out at once or never. Labels are left out. Raises ActshiftError for a batch
    size below 1.
    """
    if batch_size < 1:
        raise ActshiftError(f"batch_size must be a whole number from 1 up, got {batch_size}.")
    order = sorted(range(len(examples)), key=lambda row: -len(examples[row]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    screen = Console(stderr=True)
    shown = show_progress and screen.is_terminal
    with evaluating(model):
        for rows in track(batches, "Reading", console=screen, transient=True, disable=not shown):
            batch = padded([examples[row] for row in rows], tokenizer)
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
            yield rows, inputs, model(**inputs)
