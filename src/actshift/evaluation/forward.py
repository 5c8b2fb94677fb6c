"""A model's outputs for encoded examples, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.encoding import padded
from actshift.errors import ActshiftError
from actshift.evaluation.generation import evaluating


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
