"""Checks that a run did not diverge: the size of weights, and the loss of the finished model. Imports torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from actshift.data.collate import pad_batch
from actshift.data.encode import IGNORE_INDEX
from actshift.errors import ActshiftError

MAX_WEIGHT = 65504.0  # the largest number of float16; larger weights could not be saved or merged in half precision
MAX_LOSS = 100.0  # nats; a uniform guess among 256,000 tokens has a loss of 12.5
CHECKED_ROWS = 4


def diverged(problem: str, rate: float, bf16: bool = False) -> ActshiftError:
    """Return the error of a run that diverged at a learning rate."""
    precision = " or precision fp32" if bf16 else ""
    return ActshiftError(
        f"{problem}; restart with a lower learning_rate (it was {rate:g}){precision} in another folder."
    )


def final_loss(model: nn.Module, rows: Sequence[Mapping[str, Any]], tokenizer: Any, language: bool) -> float:
    """Return the largest loss of a model on a few of the shortest rows, and NaN if an output is NaN.

    Long rows may not fit into memory, since this is a plain forward pass. A `language` model without labels has the
    loss of writing the whole row. Other models without labels have the loss 0.
    """
    device, losses = next(model.parameters()).device, [0.0]
    for row in sorted(rows, key=lambda row: len(row["input_ids"])):
        if language:
            row = {"labels": row["input_ids"], **row}
            if all(label == IGNORE_INDEX for label in row["labels"][1:]):  # the first token is never predicted
                continue
        with torch.no_grad():
            output = model(**{name: value.to(device) for name, value in pad_batch([row], tokenizer).items()})
        outputs = output.logits if "logits" in output else output.last_hidden_state
        losses.append(math.nan if outputs.isnan().any() else float(output.loss) if "labels" in row else 0.0)
        if len(losses) > CHECKED_ROWS:
            break
    return math.nan if any(map(math.isnan, losses)) else max(losses)


def trained_parameters(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Return the trained parameters by name."""
    return ((name, parameter.detach()) for name, parameter in model.named_parameters() if parameter.requires_grad)


def magnitudes(tensors: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Return the largest absolute value of each floating-point tensor, NaN if it contains NaN; makes no copies."""
    values = ((name, tensor) for name, tensor in tensors if torch.is_tensor(tensor) and tensor.numel())
    ends = {name: torch.stack(tensor.aminmax()) for name, tensor in values if tensor.is_floating_point()}
    return {name: float(end.abs().max()) for name, end in ends.items()}
