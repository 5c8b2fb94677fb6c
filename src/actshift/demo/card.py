"""The papers of the bundled base model: its model card, its settings and its loss curve."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from actshift.compare.provenance import machine

if TYPE_CHECKING:
    from actshift.demo.pretrain import PretrainConfig

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en, fr]
---

# actshift demo base

A small Llama ({parameters:,} parameters, {layers} layers, width {hidden_size}, one token a word),
pretrained from scratch for `actshift demo`. It works out nested list operations (largest, smallest,
first, last, sum, difference; numbers up to twenty), asked in ListOps notation or in English, and
knows a little English and French beside: number words, short stories, translations.
It is a teaching model: outside its corpus it knows nothing.

    the largest of three and ( the smallest of nine and four ) is    ->  four .
    what is the sum of three and four ? answer :                     ->  seven .
    [MAX 3 [MIN 9 4 ] ] =                                            ->  4
    seven in french is                                               ->  sept .

## What it was never shown

The demo task: a list operation asked in English and answered by a French sentence
(`what is ... ? réponse :` -> `sept est la réponse .`). The nested expressions of the task's test
split were left out of the corpus in every form, inside larger expressions too.

## Skill, measured

Exact match of greedy completions, {samples} expressions a row; those of depth 2 and 3 were all
held out of pretraining:

| form and depth | right |
|---|---|
{skill}

## How it was made

`python -m actshift.demo.pretrain --out DIR`: {steps:,} steps of batch {batch_size} in
{minutes:.0f} minutes on {device}.
AdamW, learning rate {learning_rate:g} (warm-up {warmup_steps} steps, cosine), weight decay
{weight_decay:g}, seed {seed}. Next-token loss on every word; the words drawn at random, which
cannot be predicted, weigh {context_weight:g}. Final loss {loss:.3f}.
All data come from the generators of `actshift.demo.corpus`: no outside text, no outside weights.
Settings and loss curve: `pretraining.json`, `loss.png`.
"""


def write_card(
    folder: Path,
    config: PretrainConfig,
    parameters: int,
    losses: list[float],
    skill: dict[str, float],
    seconds: float,
) -> None:
    """Write README.md, pretraining.json and, where matplotlib is installed, loss.png.

    `losses` has one mean for every 50 steps, `skill` one accuracy for every form and depth.
    """
    device = machine()
    rows = "\n".join(f"| {name} | {share:.1%} |" for name, share in skill.items())
    facts = {
        "parameters": parameters,
        "samples": config.skill_samples,
        "skill": rows,
        "minutes": seconds / 60,
    }
    card = CARD.format(**asdict(config), **facts, device=device, loss=losses[-1])
    (folder / "README.md").write_text(card, encoding="utf-8")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    record = {
        "config": asdict(config),
        "parameters": parameters,
        "device": device,
        "seconds": round(seconds),
        "versions": versions,
        "skill": skill,
        "loss_every_50_steps": [round(loss, 4) for loss in losses],
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        plot_loss(folder / "loss.png", losses)


def plot_loss(path: Path, losses: list[float]) -> None:
    """Draw the loss curve, one point a 50 steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([50 * (i + 1) for i in range(len(losses))], losses)
    axes.set(xlabel="step", ylabel="loss", title="pretraining of the demo base", yscale="log")
    figure.savefig(path, dpi=80)
