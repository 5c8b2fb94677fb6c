"""Measure a classification head on an untouched encoder: ``python scripts/encoder_head.py --base B --rows R``.

B is a BERT model, and R is the folder with the rows of one task. As in training, the head reads the output of the
pooler. L-BFGS fits it to all training rows in one batch, with the weight decay that is best on the validation rows.
The accuracy is a lower bound for every method. The result is printed as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.data import LABELLED, load_rows
from actshift.data.encode import class_names, encode
from actshift.evaluation.generation import forward
from actshift.loading import load_model
from actshift.model_head import Head

DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
STEPS = 200


def pooled(model: Any, tokenizer: Any, path: Path, labels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return the pooled features `[rows, d]` and the label indices `[rows]`."""
    examples = encode(load_rows(str(path), kinds=LABELLED), tokenizer, 512, labels).examples
    features: list[Any] = [None] * len(examples)
    for numbers, _, output in forward(model, tokenizer, examples):
        for number, feature in zip(numbers, output.pooler_output, strict=True):
            features[number] = feature
    return torch.stack(features), torch.tensor([example["labels"] for example in examples])


def fit_head(features: Tensor, labels: Tensor, decay: float) -> Tensor:
    """Return the weights `[d + 1, classes]` that minimise cross-entropy plus decay times their squares, from zero."""
    weights = torch.zeros(features.shape[1] + 1, int(labels.max()) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(logits(features, weights), labels) + decay * weights[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()


def logits(features: Tensor, weights: Tensor) -> Tensor:
    """Return the logits `[rows, classes]`."""
    return features @ weights[:-1] + weights[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    arguments = parser.parse_args()
    names = class_names(load_rows(str(arguments.rows / "train.jsonl"), kinds=LABELLED))
    model, tokenizer = load_model(arguments.base, head=Head("FEATURE_EXTRACTION"))
    pooled_splits = {
        split: pooled(model, tokenizer, arguments.rows / f"{split}.jsonl", names)
        for split in ("train", "validation", "test")
    }
    heads = {decay: fit_head(*pooled_splits["train"], decay) for decay in DECAYS}

    def accuracy(decay: float, split: str) -> float:
        features, labels = pooled_splits[split]
        return (logits(features, heads[decay]).argmax(-1) == labels).double().mean().item()

    best = max(DECAYS, key=lambda decay: accuracy(decay, "validation"))
    figures = {split: accuracy(best, split) for split in pooled_splits}
    print(json.dumps({"decay": best, "parameters": heads[best].numel(), **figures}))


if __name__ == "__main__":
    main()
