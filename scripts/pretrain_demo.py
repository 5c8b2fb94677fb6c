"""Pretrain the bundled demo model from scratch, on a CPU or a GPU.

    python scripts/pretrain_demo.py --out DIR

The folder receives weights, tokenizer, model card, settings and loss curve.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
import transformers
from demo_corpus import EOS_ID, FORMS, PAD_ID, Document, build_tokenizer, documents
from rich.progress import track
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from actshift.compare.provenance import machine
from actshift.demo.task import Expression, random_expression
from actshift.errors import ActshiftError
from actshift.evaluation import evaluate

BUCKETS = 16
"""Batches that are sorted by length together, so that batches contain little padding."""
AVERAGED_STEPS = 50


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the run; the defaults made the bundled model."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 6
    heads: int = 4
    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    context_weight: float = 0.1  # loss weight of the random words, which cannot be predicted
    skill_samples: int = 500
    seed: int = 0


def pretrain(out: Path, config: PretrainConfig) -> Path:
    """Pretrain the model and write its folder.

    Raises:
        ActshiftError: if `out` exists; nothing is computed then.
    """
    if out.exists():
        raise ActshiftError(f"{out} already exists. Give --out a folder that does not exist.")
    partial = out.with_name(out.name + ".partial")  # renamed at the end, so that `out` is complete or absent
    shutil.rmtree(partial, ignore_errors=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(partial)
    model = build_model(config, tokenizer)
    model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's own annotation
    losses = train(model, tokenizer, config, partial)
    model.save_pretrained(partial)
    skill = {
        f"{form}, depth {depth}": skill_accuracy(model, tokenizer, form, depth, config.skill_samples)
        for form in FORMS
        for depth in (1, 2, 3)
    }
    write_card(partial, config, model.num_parameters(), losses, skill, time.perf_counter() - start)
    partial.rename(out)
    return out


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Return a small Llama with random weights and tied embeddings."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=tokenizer.model_max_length,
            initializer_range=0.04,  # the default 0.02 suits models ten times wider
            tie_word_embeddings=True,
            pad_token_id=PAD_ID,
            bos_token_id=EOS_ID,
            eos_token_id=EOS_ID,
        )
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerBase, weight: float) -> tuple[list[int], list[float]]:
    """Return the token ids of a document with a final eos, and the loss weight of each token."""
    context = tokenizer.encode(document.context)
    answer = [*tokenizer.encode(document.answer), EOS_ID]
    return context + answer, [weight] * len(context) + [1.0] * len(answer)


def batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield token ids and loss weights of texts of similar length, both `[batch, tokens]` and padded on the right."""
    stream, rng = documents(config.seed), random.Random(config.seed)
    size = config.batch_size
    while True:
        pool = [encode(d, tokenizer, config.context_weight) for d in islice(stream, size * BUCKETS)]
        pool.sort(key=lambda row: len(row[0]))
        for start in rng.sample(range(0, len(pool), size), BUCKETS):
            rows = pool[start : start + size]
            width = len(rows[-1][0])
            ids = torch.tensor([i + [PAD_ID] * (width - len(i)) for i, _ in rows])
            yield ids, torch.tensor([w + [0.0] * (width - len(w)) for _, w in rows])


def weighted_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean cross-entropy of the next token; causal attention needs no mask for right padding."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainConfig, out: Path
) -> list[float]:
    """Train with AdamW on a cosine schedule, and save to `out` every 500 steps.

    Returns:
        The mean loss of every 50 steps.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        return min((step + 1) / config.warmup_steps, 0.51 + 0.49 * math.cos(math.pi * step / config.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses: list[float] = []
    model.train()
    stream = islice(batches(config, tokenizer), config.steps)
    for step, (ids, weights) in enumerate(track(stream, "pretraining", total=config.steps), start=1):
        loss = weighted_loss(model, ids.to(model.device), weights.to(model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 500 == 0:
            model.save_pretrained(out)
    model.eval()
    windows = [losses[i : i + AVERAGED_STEPS] for i in range(0, len(losses), AVERAGED_STEPS)]
    return [sum(window) / len(window) for window in windows]


def held_out_expressions(depth: int, n: int, seed: int = 0) -> list[Expression]:
    """Draw `n` expressions that pretraining left out; at depth 1, where it leaves out none, draw any."""
    rng = random.Random(seed)
    expressions: list[Expression] = []
    while len(expressions) < n:
        expression = random_expression(rng, depth)
        if depth == 1 or expression.is_held_out:
            expressions.append(expression)
    return expressions


def skill_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, form: str, depth: int, n: int = 500
) -> float:
    """Return the exact-match accuracy of greedy answers to `n` expressions in one of `FORMS`."""
    texts = [FORMS[form](expression) for expression in held_out_expressions(depth, n)]
    rows = [{"prompt": text.context, "completion": text.answer} for text in texts]
    return evaluate(model, tokenizer, rows, max_new_tokens=8, batch_size=256).accuracy


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en, fr]
---

# actshift demo base

A small Llama ({parameters:,} parameters, {layers} layers, width {hidden_size}, one token for each word),
pretrained from scratch for `actshift demo`. It solves nested list operations (largest, smallest, first, last, sum,
difference; numbers up to twenty), asked in ListOps notation or in English. It also knows a little English and French:
number words, short stories, translations. This is a teaching model: it knows nothing outside its corpus.

    the largest of three and ( the smallest of nine and four ) is    ->  four .
    what is the sum of three and four ? answer :                     ->  seven .
    [MAX 3 [MIN 9 4 ] ] =                                            ->  4
    seven in french is                                               ->  sept .

## Left out of pretraining

The demo task: a list operation asked in English and answered by a French sentence
(`what is ... ? réponse :` -> `sept est la réponse .`). The corpus contains the nested expressions of the task's test
split in no form, and not inside larger expressions either.

## Measured skill

Exact match of greedy completions on {samples} expressions for each row. All expressions of depth 2 and 3 were held
out of pretraining:

| form and depth | correct |
|---|---|
{skill}

## How it was made

`python scripts/pretrain_demo.py --out DIR`: {steps:,} steps of batch {batch_size} in
{minutes:.0f} minutes on {device}.
AdamW, learning rate {learning_rate:g} ({warmup_steps} warm-up steps, cosine), weight decay {weight_decay:g},
seed {seed}. The loss is that of the next token for every word. Words drawn at random cannot be predicted and have
weight {context_weight:g}. Final loss {loss:.3f}.
The generators of `scripts/demo_corpus.py` make all data: no outside text, no outside weights.
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
    """Write README.md, pretraining.json and, if matplotlib is installed, loss.png.

    Args:
        losses: the mean loss of every 50 steps.
        skill: the accuracy of every form and depth.
    """
    device = machine()
    card = CARD.format(
        **asdict(config),
        parameters=parameters,
        samples=config.skill_samples,
        skill="\n".join(f"| {name} | {share:.1%} |" for name, share in skill.items()),
        minutes=seconds / 60,
        device=device,
        loss=losses[-1],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    record = {
        "config": asdict(config),
        "parameters": parameters,
        "device": device,
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "skill": skill,
        "loss_every_50_steps": [round(loss, 4) for loss in losses],
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        plot_loss(folder / "loss.png", losses)


def plot_loss(path: Path, losses: list[float]) -> None:
    """Draw the loss curve with one point for every 50 steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([AVERAGED_STEPS * (i + 1) for i in range(len(losses))], losses)
    axes.set(xlabel="step", ylabel="loss", title="pretraining of the demo base", yscale="log")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    arguments = parser.parse_args()
    try:
        out = pretrain(arguments.out, PretrainConfig(steps=arguments.steps, seed=arguments.seed))
    except ActshiftError as error:
        parser.exit(2, f"{error}\n")
    print(f"Written to {out}.")


if __name__ == "__main__":
    main()
