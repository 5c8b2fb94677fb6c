"""Test `locate` and `extract` on SmolLM2 with ListOps: ``python scripts/real_theory.py --rows ROWS --out OUT``.

ROWS is the folder that real_rows.py wrote. OUT keeps the fully fine-tuned model. Each measurement is a file in
docs/results/real/theory, and the same command continues from these files.

1. Ranking: train one adapter at each of 24 cells (site × layer), and compare the loss that it reaches with the
   first-order gain that `locate` computes before training.
2. Extraction: fine-tune the whole model, and extract post-block adapters from it in closed form and by distillation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from encoder_rows import read_rows
from locate_results import agreement, learn, mean_loss
from real_models import model_folder
from real_study import RECORDS

from actshift import LowRank, SteeringConfig, attach, locate, token_batches
from actshift.analysis.extract import ModelPair, distill, extract
from actshift.evaluation import evaluate, generate_completions
from actshift.files import write_atomically
from actshift.loading import load_model
from actshift.training import TrainSettings, train

THEORY = RECORDS / "theory"
SITES = ("post_block", "post_mlp", "post_attention")
LAYERS = (0, 4, 8, 12, 17, 21, 25, 29)
BATCH, STEPS, RATE, WARMUP = 16, 40, 2e-3, 3
LOCATE_ROWS, VALIDATION_ROWS, TEST_ROWS = 64, 200, 500
FULL_RATE = 5e-5
RANKS = (8, 32)
TEXT_ROWS, DISTILL_STEPS = 1000, 60


def record(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the stored measurement `name`, or measure and store it."""
    path = THEORY / f"{name}.json"
    if not path.exists():
        start = time.perf_counter()
        values = measure() | {"seconds": round(time.perf_counter() - start, 1)}
        THEORY.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(values) + "\n")
        print(name, values, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def load() -> tuple[Any, Any]:
    return load_model(model_folder("smollm2"), dtype="float32", device="cpu")


def trained_loss(site: str, layer: int, rows: Path) -> dict[str, Any]:
    """Train post-block r=8 at one site of one layer, and return the validation loss that it reaches."""
    model, tokenizer = load()
    train_batches = token_batches(read_rows(rows / "train.jsonl", STEPS * BATCH), tokenizer, BATCH)
    validation = token_batches(read_rows(rows / "validation.jsonl", VALIDATION_ROWS), tokenizer, 50)
    torch.manual_seed(0)
    adapted = attach(model, SteeringConfig(adapter=LowRank(8), site=site, layers=[layer]))
    [(_, loss)] = learn(adapted, train_batches, validation, STEPS, rate=RATE, warmup=WARMUP)
    return {"site": site, "layer": layer, "loss": loss}


def gains(rows: Path) -> dict[str, Any]:
    """Return the first-order gain of each cell, and the loss before training."""
    model, tokenizer = load()
    batches = token_batches(read_rows(rows / "train.jsonl", LOCATE_ROWS), tokenizer, BATCH)
    report = locate(model, batches, layers=LAYERS, rank=8, weights=False)
    cells = {f"{place.site}-{place.layer}": place.gain(8).value for place in report.places if place.site in SITES}
    validation = token_batches(read_rows(rows / "validation.jsonl", VALIDATION_ROWS), tokenizer, 50)
    return {"gains": cells, "loss": mean_loss(model, validation)}


def ranking(rows: Path) -> dict[str, Any]:
    """Return the rank correlation of the gains, and of the depth of the layer, with the trained losses."""
    located = record("locate-gains", lambda: gains(rows))
    cells = []
    for layer in LAYERS:
        for site in SITES:
            cell = record(f"locate-{site}-{layer}", lambda site=site, layer=layer: trained_loss(site, layer, rows))
            cells.append({**cell, "gain": located["gains"][f"{site}-{layer}"]})
    loss: Callable[[dict[str, Any]], float] = lambda cell: -cell["loss"]  # noqa: E731
    return {
        "loss_before": located["loss"],
        "gain": agreement(cells, loss, lambda cell: cell["gain"]),
        "early_layer": agreement(cells, loss, lambda cell: -cell["layer"]),
        "cells": cells,
    }


def finetuned(rows: Path, out: Path) -> Any:
    """Return the fully fine-tuned model; train it first if it is missing."""
    folder = out / "full"
    if not (folder / "config.json").is_file():
        settings = {"method": "full", "learning_rate": FULL_RATE, "epochs": 1, "batch_size": BATCH, "chat": False}
        settings |= {"gradient_accumulation": 1, "group_by_length": True, "precision": "bf16", "warmup": 0.06}
        data = {"data": str(rows / "train.jsonl"), "out": str(folder)}
        train(TrainSettings(model=str(model_folder("smollm2")), **data, **settings), resume=folder.exists())
    return load_model(folder, dtype="float32", device="cpu")[0]


def extraction(rows: Path, out: Path) -> list[dict[str, Any]]:
    """Return the accuracies of base, fine-tuned model and extracted adapters of each rank."""
    base, tokenizer = load()
    full = finetuned(rows, out)
    test = read_rows(rows / "test.jsonl", TEST_ROWS)

    def accuracy(model: Any) -> dict[str, Any]:
        report = evaluate(model, tokenizer, test, batch_size=64)
        return {"exact": report.accuracy, "choices": report.choice_accuracy}

    results = [record("extract-base", lambda: accuracy(base)), record("extract-full", lambda: accuracy(full))]
    prompts = [row["prompt"] for row in read_rows(rows / "train.jsonl", TEXT_ROWS)]
    answers = generate_completions(full, tokenizer, prompts, 4, batch_size=64)
    text = [{"prompt": p, "completion": answer} for p, answer in zip(prompts, answers, strict=True)]
    batches = token_batches(text, tokenizer, BATCH)
    for rank in RANKS:
        results.append(record(f"extract-rank-{rank}", lambda rank=rank: extracted(rank, full, batches, accuracy)))
    return results


def extracted(rank: int, full: Any, batches: Any, accuracy: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Extract an adapter in closed form, then distil it, and return its accuracies and its number of parameters."""
    extraction = extract(load()[0], full, batches, rank, linear=False, ranks=(rank,), nonlinear_steps=0)
    closed_form = accuracy(extraction.model)
    pair = ModelPair.of(load()[0], full)
    pair = ModelPair(extraction.model, full, pair.blocks, pair.finetuned_blocks, pair.outside)
    kl = distill(pair, batches, DISTILL_STEPS, learning_rate=2e-3)
    parameters = extraction.report.parameters
    return {"rank": rank, "parameters": parameters, "closed_form": closed_form, "kl": kl} | accuracy(extraction.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = arguments.rows / "listops"
    print(json.dumps(ranking(rows) | {"cells": len(LAYERS) * len(SITES)}))
    print(json.dumps(extraction(rows, arguments.out)))


if __name__ == "__main__":
    main()
