"""Trainers of preferences and rewards on a tiny model, before they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from actshift.training import TrainSettings
from actshift.training.build import adapt
from actshift.training.configs import AdapterSpec
from actshift.training.data import Inputs
from actshift.training.fit import TrainingRun
from actshift.training.objectives import OBJECTIVES
from actshift.training.run_folder import RunFolder
from tests.characters import char_tokenizer
from tests.zoo import ARCHITECTURES

PREFERENCES = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "no idea"} for a in range(4) for b in range(4)]
"""Sums whose answer is liked better than none."""


def trainer_before_training(folder: Path, rows: Sequence[Mapping[str, Any]], settings: TrainSettings) -> Any:
    """Return the trainer of a run that has not taken a step, with its model."""
    objective, tokenizer = OBJECTIVES[str(settings.objective)], char_tokenizer()
    dataset = Dataset.from_list([dict(row) for row in rows])
    inputs = Inputs(objective, dataset, None, objective.head(dataset))
    torch.manual_seed(0)
    model = adapt(ARCHITECTURES["llama"](), AdapterSpec.from_settings(settings), 10)
    examples = inputs.examples(tokenizer, settings)
    run = TrainingRun(RunFolder(folder), objective, examples, replace(settings, max_steps=10), resume=False, keep=False)
    return objective.build_trainer(model, examples, settings, run.arguments(), [])


def log_probabilities(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of each token but the first, `[batch, seq - 1]`, by a plain forward."""
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
