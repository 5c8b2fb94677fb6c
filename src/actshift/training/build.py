"""Build the model of a run: load the base, attach the adapter, and set its initial weights."""

from __future__ import annotations

import time
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, warn_once
from actshift.model_head import CAUSAL, Head
from actshift.training.configs import AdapterSpec
from actshift.training.objectives import Examples
from actshift.training.result import SelectedHeads
from actshift.training.settings import TrainSettings, require_setting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GRADIENT_ROWS = 256  # maximum number of training rows for `init="gradient"`


def load_base(settings: TrainSettings, head: Head = CAUSAL, config: Any = None) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the base model, whose head is seeded if it is new, and its tokenizer. A `config` of None is loaded.

    Frozen weights are in bf16 if the run computes in it. Trained weights stay in float32, where small updates are not
    rounded away, and are cast in each forward pass.

    Raises:
        ActshiftError: the model cannot be loaded.
    """
    import torch

    from actshift.loading import load_model
    from actshift.training.trainer import uses_bf16

    bf16 = uses_bf16(settings)
    if bf16 and not torch.cuda.is_available() and (cost := bf16_cost()) > 1:
        warn_once(f"On this CPU, matrix products take {cost:.1f} times as long in bf16 as in fp32; use precision fp32.")
    bf16 = bf16 and settings.method != "full"
    torch.manual_seed(settings.seed)
    name, dtype = require_setting(settings, "model"), "auto" if bf16 else "float32"
    trusted, revision = settings.trust_remote_code, settings.revision
    loaded: Any = load_model(name, dtype, trusted, head=head, config=config, revision=revision)
    return (loaded[0].to(torch.bfloat16) if bf16 else loaded[0]), loaded[1]  # on a CPU, dtype "auto" is float32


@cache
def bf16_cost() -> float:
    """Measure how long this CPU takes for a matrix product and its gradient in bf16, divided by the time in fp32.

    The result is about 0.3 on a CPU with bf16 instructions, 1.2 on one with only AVX-512, and 10 to 40 on others.
    """
    import torch

    def seconds(dtype: torch.dtype) -> float:
        weight, inputs = torch.ones(2304, 576, dtype=dtype), torch.ones(64, 576, dtype=dtype, requires_grad=True)
        times: list[float] = []
        for _ in range(3):
            start = time.process_time()
            torch.nn.functional.linear(inputs, weight).sum().backward()
            times.append(time.process_time() - start)
        return min(times)

    return seconds(torch.bfloat16) / seconds(torch.float32)


def base_without_weights(settings: TrainSettings, head: Head = CAUSAL, config: Any = None) -> PreTrainedModel:
    """Return the base model on the meta device, built from its config. A `config` of None is loaded.

    Raises:
        ActshiftError: the model does not exist, or its architecture does not support the head.
    """
    import torch

    from actshift.loading import load_config

    name, trusted = require_setting(settings, "model"), settings.trust_remote_code
    config = head.set_labels(config or load_config(name, trusted, settings.revision))
    try:
        with torch.device("meta"):
            return head.auto_class.from_config(config, trust_remote_code=trusted)
    except ValueError as error:
        needed, architecture = head.auto_class.__name__.removeprefix("Auto"), getattr(config, "model_type", "unknown")
        raise ActshiftError(f"There is no {needed} of type {architecture!r}; choose another model or data.") from error


def adapt(
    model: Any, spec: AdapterSpec, steps: int | None = None, heads: SelectedHeads | None = None, head: Head = CAUSAL
) -> Any:
    """Return the model as a PeftModel with a seeded adapter, or with all weights trainable for full training.

    Args:
        steps: the steps of the run, for adapters with a schedule.
        heads: the attention heads that LoFiT selected, by layer; None attaches the adapter that selects them.
        head: the model head; a classifier's head is trained too.

    Raises:
        ActshiftError: the method does not fit the model.
    """
    import torch

    from actshift.sites import find_blocks
    from actshift.tuner import attach
    from actshift.tuner.loading import lora_model

    settings = spec.settings
    torch.manual_seed(settings.seed)
    if settings.method == "full":
        return model.requires_grad_(True)
    if settings.method == "lora":
        lora = (settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.lora_targets)
        return lora_model(model, *lora, head.task_type)
    if heads is None:
        return attach(model, spec.config(len(find_blocks(model)), steps, head.task_type))
    return attach(model, spec.head_vectors_config(heads, head.task_type))


def set_initial_weights(adapted: Any, spec: AdapterSpec, examples: Examples) -> None:
    """Copy the weights of the saved adapter `start`, or compute W_down for `init="gradient"` from random rows.

    Other adapters keep their weights from `adapt`. Source: this project, docs/method.md#gradient-initialisation.

    Raises:
        ActshiftError: the saved adapter does not fit, or the rows have no gradient.
    """
    settings = spec.settings
    if settings.start:
        from actshift.tuner import start_from

        start_from(adapted, settings.start)
    elif any(getattr(each.adapter, "init", None) == "gradient" for each in spec.interventions):
        from actshift.data.collate import pad_batch
        from actshift.gradients import gradient_init

        rows, size = examples.train.examples, settings.batch_size
        drawn = Random(settings.seed).sample(rows, min(GRADIENT_ROWS, len(rows)))
        batches = [pad_batch(drawn[start : start + size], examples.tokenizer) for start in range(0, len(drawn), size)]
        gradient_init(adapted, batches)
