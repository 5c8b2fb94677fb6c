"""Begin an adapter where a saved one ended, or along the gradient of the rows that it will learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.model_head import CAUSAL, Head
from actshift.training.arguments import uses_bf16
from actshift.training.configs import head_vectors_config, joint_config, steering_config
from actshift.training.data import require_setting
from actshift.training.fit import Job
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Heads = Mapping[int, Sequence[int]]
"""Attention heads, by block."""


def check_names(settings: TrainSettings) -> None:
    """Raise ActshiftError for a name among the settings that there is not, before hours of loading."""
    from actshift.tuner import read_config

    if settings.steers:
        steering = steering_config(settings)
        if settings.start:
            if settings.two_phases:
                raise ActshiftError("LoFiT chooses its heads from scratch; leave start out, or use another adapter.")
            read_config(settings.start)
        if settings.method == "joint":
            joint_config(settings, steering)


def load_base(settings: TrainSettings, head: Head = CAUSAL) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the base model and its tokenizer; bf16 is for weights that stay frozen, and a new head is seeded.

    Weights that are trained stay in float32, where small updates are not rounded away; a run in bf16 computes with
    them in bf16 all the same. Raises ActshiftError where the model cannot be loaded.
    """
    import torch

    from actshift.loading import load_model

    bf16 = uses_bf16(settings) and settings.method != "full"
    torch.manual_seed(settings.seed)
    model, tokenizer = load_model(
        require_setting(settings, "model"),
        dtype="auto" if bf16 else "float32",
        trust_remote_code=settings.trust_remote_code,
        head=head,
    )
    model: Any = model
    return (model.to(torch.bfloat16) if bf16 else model), tokenizer  # in place; on a CPU "auto" is float32


def base_without_weights(settings: TrainSettings, head: Head = CAUSAL) -> PreTrainedModel:
    """Return the base model on the meta device: its structure, from its config alone.

    Raises ActshiftError where there is no such model, or none of its kind with such a head.
    """
    import torch

    from actshift.loading import load_config

    config = head.set_labels(load_config(require_setting(settings, "model"), settings.trust_remote_code))
    try:
        with torch.device("meta"):
            return head.auto_class.from_config(config, trust_remote_code=settings.trust_remote_code)
    except ValueError as error:
        kind = getattr(config, "model_type", "unknown")
        wanted = head.auto_class.__name__.removeprefix("Auto")
        raise ActshiftError(f"There is no {wanted} of type {kind!r}, which this training needs.") from error


def adapt(
    model: Any, settings: TrainSettings, steps: int | None = None, heads: Heads | None = None, head: Head = CAUSAL
) -> Any:
    """Return `model` with the weights to train that the settings' method asks for, seeded, and all others frozen.

    A PeftModel for steering, LoRA and both; the model itself where every weight is trained. It may be on the meta
    device, to count. `steps` are those of the run, over which a schedule of the adapter's own extends; `heads` are
    those that LoFiT chose, by block, before which it is adapted to choose them. A classifier's `head` is trained too.

    Raises ActshiftError where the method does not fit the model.
    """
    import torch

    from actshift.sites import find_blocks
    from actshift.tuner import attach
    from actshift.tuner.lora import lora_model

    torch.manual_seed(settings.seed)
    if settings.method == "full":
        return model.requires_grad_(True)
    if settings.method == "lora":
        lora = (settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.lora_targets)
        return lora_model(model, *lora, head.task_type)
    if heads is not None:
        return attach(model, head_vectors_config(settings, heads, head.task_type))
    steering = steering_config(settings, len(find_blocks(model)), steps, head.task_type)
    return attach(model, steering if settings.method == "steering" else joint_config(settings, steering))


ROWS = 256
"""How many of the training rows are looked at."""


def first_weights(adapted: Any, job: Job) -> None:
    """Fill what begins at a saved adapter, or by `init="gradient"` from rows that the run's seed draws.

    Other adapters have their weights already. Raises ActshiftError where the saved one does not fit, or the rows give
    no gradient.
    """
    from actshift.data.collate import padded
    from actshift.gradients import gradient_init
    from actshift.tuner import start_from

    if job.settings.start:
        start_from(adapted, job.settings.start)
        return
    interventions = adapted.peft_config["default"].all_interventions if job.settings.steers else ()
    if all(getattr(one.adapter, "init", None) != "gradient" for one in interventions):
        return
    examples, size = job.examples.train.examples, job.settings.batch_size
    drawn = Random(job.settings.seed).sample(examples, min(ROWS, len(examples)))
    gradient_init(adapted, [padded(drawn[at : at + size], job.tokenizer) for at in range(0, len(drawn), size)])
