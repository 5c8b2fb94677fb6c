"""Pretrain the bundled base model: ``python -m actshift.demo.pretrain --out DIR`` (CPU or GPU)."""

from __future__ import annotations

import argparse
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from rich.progress import track
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from actshift.demo.card import write_card
from actshift.demo.corpus import FORMS, Document, documents
from actshift.demo.skill import skill_accuracy
from actshift.demo.tokenizer import EOS_ID, PAD_ID, build_tokenizer
from actshift.errors import ActshiftError

BUCKETS = 16  # batches sorted by length together, so that little of a batch is padding


@dataclass(frozen=True)
class PretrainConfig:
    """Every setting of the run; the defaults made the bundled model."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 6
    heads: int = 4
    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    context_weight: float = 0.1  # weight in the loss of the words drawn at random, which cannot be predicted
    skill_samples: int = 500
    seed: int = 0


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
            initializer_range=0.04,  # 0.02 is made for widths ten times larger
            tie_word_embeddings=True,
            pad_token_id=PAD_ID,
            bos_token_id=EOS_ID,
            eos_token_id=EOS_ID,
        )
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerBase, weight: float) -> tuple[list[int], list[float]]:
    """Return the token ids of a document, ended by eos, and the weight of each in the loss."""
    context = tokenizer.encode(document.context)
    answer = [*tokenizer.encode(document.answer), EOS_ID]
    return context + answer, [weight] * len(context) + [1.0] * len(answer)


def batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield token ids and loss weights, both (batch, seq), right-padded, documents of a length together."""
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
    """Return the weighted mean cross-entropy of the next token (causal: right padding needs no mask)."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, config: PretrainConfig, out: Path
) -> list[float]:
    """Train with AdamW on a cosine schedule, saving to `out` now and then; return every 50 losses' mean."""
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
    return [sum(losses[i : i + 50]) / len(losses[i : i + 50]) for i in range(0, len(losses), 50)]


def pretrain(out: Path, config: PretrainConfig) -> Path:
    """Pretrain the base model and write its folder, weights, tokenizer, model card and loss curve.

    Raises:
        ActshiftError: if `out` exists; nothing is computed then.
    """
    if out.exists():
        raise ActshiftError(f"{out} exists already; give --out a folder that does not.")
    partial = out.with_name(out.name + ".partial")  # the run works here, so that `out` is whole or absent
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


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(prog="python -m actshift.demo.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig.seed)
    arguments = parser.parse_args()
    try:
        out = pretrain(arguments.out, PretrainConfig(steps=arguments.steps, seed=arguments.seed))
    except ActshiftError as error:
        parser.exit(2, f"{error}\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
