"""Generate completions in batches, stream one completion, and run a model over batches of examples."""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)

from actshift.data.collate import pad_batch
from actshift.data.template import Message
from actshift.errors import ActshiftError
from actshift.evaluation.prompts import encode_prompts, pad_left
from actshift.loading import check_vocabulary
from actshift.model_head import head_of


def generate_completions(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    max_new_tokens: int = 64,
    batch_size: int = 16,
    *,
    temperature: float = 0.0,
    long_prompts: str = "refuse",
    add_special_tokens: bool = True,
    adapter_names: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
    show_progress: bool = False,
) -> list[str]:
    """Return the model's completion of each prompt, without special tokens.

    Batches of any size have the same completions as single prompts.

    Args:
        prompts: Texts, or lists of messages, which the chat template renders.
        temperature: 0 decodes greedily; a positive number samples at this temperature.
        long_prompts: "refuse" raises an error for a prompt that exceeds the model's context less `max_new_tokens`;
            "truncate" keeps its end and warns.
        add_special_tokens: False for prompts rendered by a chat template, which already contain special tokens.
        adapter_names: One adapter name of a PeftModel per prompt, `"__base__"` for none; None for the active adapter.
        references: One text per prompt. A completion ends as soon as it differs from its text; None never ends it.

    Raises:
        ActshiftError: A number is out of range, a prompt is empty or too long, or `adapter_names` has another length
            than `prompts`.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> len(generate_completions(model, tokenizer, ["MAX 3 7 =", "MIN 3 7 ="], max_new_tokens=4))
        2
    """
    if adapter_names is not None and len(adapter_names) != len(prompts):
        counts = f"{len(adapter_names)} entries for {len(prompts)} prompts"
        raise ActshiftError(f"adapter_names has {counts}. Give one per prompt.")
    settings = generation_config(model, tokenizer, max_new_tokens, temperature)
    encoded = encode_prompts(model.config, tokenizer, prompts, max_new_tokens, long_prompts, add_special_tokens)
    check_vocabulary(((f"Prompt {row}", ids) for row, ids in enumerate(encoded, start=1)), model.config, tokenizer)
    completions, ends = [""] * len(prompts), settings.eos_token_id or ()
    with evaluation_mode(model):
        for batch in tracked(batches(encoded, batch_size), "Generating", show_progress):
            adapters = {} if adapter_names is None else {"adapter_names": [adapter_names[row] for row in batch]}
            inputs = pad_left([encoded[row] for row in batch], settings.pad_token_id, model.device)
            width = inputs["input_ids"].shape[1]
            stops = _StopAtMismatch(tokenizer, width, [references[row] for row in batch]) if references else None
            criteria = {"stopping_criteria": StoppingCriteriaList([stops])} if stops else {}
            output = model.generate(**inputs, generation_config=settings, **adapters, **criteria)
            for place, (row, ids) in enumerate(zip(batch, output[:, width:].tolist(), strict=True)):
                ids = ids[: stops.lengths.get(place)] if stops else ids
                stop = next((index for index, token in enumerate(ids) if token in ends), len(ids))
                completions[row] = str(tokenizer.decode(ids[:stop], skip_special_tokens=True))
    return completions


def stream_completion(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | Sequence[Message],
    write: Callable[[str], object],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    add_special_tokens: bool = True,
) -> str:
    """Return the model's completion of `prompt`, and call `write` with each piece as soon as it is generated.

    Arguments are those of `generate_completions`, but a prompt that is too long is always truncated, with a warning.

    Raises:
        ActshiftError: A number is out of range, or the prompt is empty.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> pieces = []
        >>> stream_completion(model, tokenizer, "MAX 3 7 =", pieces.append, max_new_tokens=4) == "".join(pieces)
        True
    """
    settings = generation_config(model, tokenizer, max_new_tokens, temperature)
    encoded = encode_prompts(model.config, tokenizer, [prompt], max_new_tokens, "truncate", add_special_tokens)
    check_vocabulary([("The prompt", encoded[0])], model.config, tokenizer)
    streamer = _CallbackStreamer(tokenizer, write)
    with evaluation_mode(model):
        inputs = pad_left(encoded, settings.pad_token_id, model.device)
        model.generate(**inputs, generation_config=settings, streamer=streamer)
    return "".join(streamer.pieces)


def generation_config(
    model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float = 0.0
) -> GenerationConfig:
    """Return settings for decoding with the model's own top-k and top-p, but without its penalties and beams.

    Generation ends at any end token of the model or the tokenizer.

    Raises:
        ActshiftError: The model cannot generate text, or a number is out of range.
    """
    if not model.can_generate():
        head = head_of(model) or "of another kind"
        raise ActshiftError(f"This model writes no text: its head is {head}. Score it on labels by 'actshift eval'.")
    if max_new_tokens < 1:
        raise ActshiftError(f"max_new_tokens must be a whole number from 1 up, got {max_new_tokens}.")
    if not 0 <= temperature < float("inf"):
        raise ActshiftError(f"temperature must be 0 (greedy) or a positive number such as 0.7, got {temperature}.")
    own = model.generation_config.eos_token_id
    candidates: list[Any] = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    ends = sorted({*candidates} - {None})
    size = getattr(model.config.get_text_config(), "vocab_size", None) or sys.maxsize
    candidates = [tokenizer.pad_token_id, *ends]  # padding is masked: any token that has an embedding works
    pad = next((token for token in candidates if token is not None and token < size), 0)
    sampling = {"do_sample": temperature > 0, "temperature": temperature or None, "max_new_tokens": max_new_tokens}
    plain = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "use_cache": True}
    return GenerationConfig(**sampling, **plain, eos_token_id=ends or None, pad_token_id=pad)


def forward(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping[str, Any]],
    read: Callable[[Mapping[str, Tensor], Any], Iterable[Any]],
    batch_size: int = 16,
    show_progress: bool = False,
) -> list[Any]:
    """Run the model on tokenized examples, without their labels, and return one result per example.

    Args:
        read: Computes the results of a batch from its inputs, each `[batch, tokens]` with padding on the right, and the
            model's output.

    Raises:
        ActshiftError: `batch_size` is below 1.
    """
    results: list[Any] = [None] * len(examples)
    with evaluation_mode(model):
        order = batches([example["input_ids"] for example in examples], batch_size)
        for rows in tracked(order, "Reading", show_progress):
            batch = pad_batch([examples[row] for row in rows], tokenizer)
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
            for row, result in zip(rows, read(inputs, model(**inputs)), strict=True):
                results[row] = result
    return results


@contextmanager
def evaluation_mode(model: Any) -> Generator[None, None, None]:
    """Put the model in evaluation mode, without gradients, and restore its mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def batches(encoded: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return batches of indices, longest rows first: a lack of memory then shows in the first batch.

    Raises:
        ActshiftError: `batch_size` is below 1.

    >>> batches([[5], [6, 7], [8, 9, 10]], batch_size=2)
    [[2, 1], [0]]
    """
    if batch_size < 1:
        raise ActshiftError(f"batch_size must be a whole number from 1 up, got {batch_size}.")
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def tracked(batches: list[list[int]], label: str, show_progress: bool) -> Iterable[list[int]]:
    """Yield the batches, with a progress bar on a terminal if it is requested."""
    console = Console(stderr=True)
    return track(batches, label, console=console, transient=True, disable=not (show_progress and console.is_terminal))


class _StopAtMismatch(StoppingCriteria):
    """End each row of a batch once its completion cannot become equal to its reference, ignoring white space.

    `lengths` has the number of tokens of the rows that were ended. Later tokens of such a row are padding.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_width: int, references: Sequence[str]) -> None:
        self.tokenizer, self.prompt_width = tokenizer, prompt_width
        self.references = ["".join(text.split()) for text in references]
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Return a bool tensor `[batch]`, True for rows to end."""
        ids = input_ids[:, self.prompt_width :]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        for row, (text, reference) in enumerate(zip(texts, self.references, strict=True)):
            text = "".join(text.split()).rstrip("\ufffd")  # a character may lack its last bytes
            if row not in self.lengths and not reference.startswith(text):
                self.lengths[row] = ids.shape[1]
        return torch.tensor([row in self.lengths for row in range(len(texts))], device=input_ids.device)


class _CallbackStreamer(TextStreamer):
    """A streamer that collects finished words and passes them to a callback instead of printing them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)  # type: ignore[arg-type]
        self.write = write
        self.pieces: list[str] = []

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.write(text)
