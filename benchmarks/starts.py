"""Methods with different initial weights."""

from __future__ import annotations

from typing import Any

from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora import LoraGAConfig, preprocess_loraga
from torch import Tensor

import actshift
from actshift import SteeringConfig
from benchmarks.learning import Batch, Start, Task
from benchmarks.methods import OURS
from benchmarks.plain import FULL, LORA, RANK

PROBE = 16
"""Number of batches for inits that need data."""
REFERENCE, GRADIENT = f"{OURS}, reference init", f"{OURS}, gradient init"
EVA, GA = f"{LORA}, EVA init", f"{LORA}, LoRA-GA init"


def post_block(init: str) -> Start:
    """Return a method that adds post-block steering with this init."""

    def start(task: Task, model: Any, batches: list[Batch]) -> Any:
        model = actshift.attach(model, SteeringConfig(rank=RANK, init=init, task_type=task.head))
        if init == "gradient":
            actshift.gradient_init(model, batches[:PROBE])
        return model

    return start


def full(task: Task, model: Any, batches: list[Batch]) -> Any:
    """Train every weight."""
    return model.requires_grad_(True)


def lora(task: Task, model: Any, batches: list[Batch]) -> Any:
    """Add PEFT's LoRA."""
    return get_peft_model(model, _config(task))


def eva(task: Task, model: Any, batches: list[Batch]) -> Any:
    """Add LoRA with A along the directions of largest variance of its inputs, and ranks distributed by variance."""
    eva_config = EvaConfig(use_label_mask=task.head == "CAUSAL_LM")
    model = get_peft_model(model, _config(task, init_lora_weights="eva", eva_config=eva_config))
    initialize_lora_eva_weights(model, batches[:PROBE], prepare_layer_inputs_fn=_inputs_of_eva, show_progress_bar=False)
    return model


def _inputs_of_eva(args: Any, chosen: Tensor, name: str) -> Tensor:
    """Return the inputs of the chosen tokens. PEFT's own function fails for a pooler, which has one input per text."""
    [x] = args
    return x.contiguous() if x.ndim == 2 else x[chosen.T.unbind()]


def lora_ga(task: Task, model: Any, batches: list[Batch]) -> Any:
    """Add LoRA with A and B set to the leading singular vectors of the gradient."""
    config = _config(task, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())
    config.target_modules = get_peft_model(task.model(), _config(task)).peft_config["default"].target_modules

    def gradients() -> None:
        for batch in batches[:PROBE]:
            model(**batch).loss.backward()

    preprocess_loraga(model, config, gradients)
    return get_peft_model(model, config)


def _config(task: Task, **options: Any) -> LoraConfig:
    return LoraConfig(r=RANK, target_modules="all-linear", task_type=task.head, **options)


STARTS: dict[str, Start] = {
    OURS: post_block("default"),
    REFERENCE: post_block("reference"),
    GRADIENT: post_block("gradient"),
    LORA: lora,
    EVA: eva,
    GA: lora_ga,
    FULL: full,
}
