"""Trainers of preferences and rewards on a tiny model, before they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from actshift.training import TrainSettings
from actshift.training.arguments import trainer_arguments
from actshift.training.build import adapt
from actshift.training.data import Examples, Inputs
from actshift.training.fit import Job
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
    model = adapt(ARCHITECTURES["llama"](), settings, 10)
    job = Job(RunFolder(folder), tokenizer, Examples.of(inputs, tokenizer, settings), settings, resume=False)
    arguments = trainer_arguments(objective, settings, job.folder, 10, saves=False, evaluates=False)
    return objective.trainer(model, job, arguments, [])


def log_probabilities(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of each token but the first, `[batch, seq - 1]`, by a plain forward."""
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
