"""What contrastive vectors do to the bundled model. Writes docs/results/vector.{json,md}.

    python scripts/vector_results.py

1. Language: a vector from French and English questions, on English list operations, by blocks and strength.
2. Operation: a vector from questions for the largest and for the smallest, on questions for the smallest.
3. Warm start: steps of a vector adapter's training to a target loss, from zero and from contrastive vectors.
"""

from __future__ import annotations

import json
import random
import time
from datetime import date
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from statistics import fmean, median

import torch
from actshift.demo.corpus import NUMBERS, NUMBERS_FR, french, story
from actshift.demo.expressions import OPERATIONS

from actshift import SteeringConfig, Vector, attach, set_strength, token_batches
from actshift.analysis.contrast import Contrast, contrast
from actshift.compare.provenance import machine
from actshift.demo import load_base
from actshift.demo.task import make_rows
from actshift.evaluation import generate_completions

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SEEDS = (0, 1, 2)
ROWS, PROMPTS = 64, 60
STRENGTHS = (-2, -1, 0, 0.5, 1, 1.25, 1.5, 2, 3, 4)
LAYERS = ([0], [1], [2], [3], [4], [5], [2, 3], [1, 2, 3], [0, 1, 2, 3, 4, 5])
WAYS = (("mean", "last"), ("pca", "last"), ("mean", "mean"))
FEW = ([2], [1, 2, 3])
"""The blocks at which the ways other than the first are tried."""
SHARED = set(NUMBERS) & set(NUMBERS_FR)
"""Words of both languages, which tell nothing."""
STEPS, EVERY, BATCH, RATES, TARGETS = 100, 5, 16, (0.05, 0.1), (4.0, 2.5, 2.0)
PACKAGES = ("actshift", "torch", "transformers", "peft")

Numbers = tuple[int, ...]


def numbers(seed: int) -> tuple[list[Numbers], list[Numbers]]:
    """Three different numbers each, to find vectors with and to be asked about: none in both."""
    known = [n for n, word in enumerate(NUMBERS[:10]) if word not in SHARED]  # the arguments that the model learnt
    drawn = random.Random(seed).sample(list(permutations(known, 3)), ROWS + PROMPTS)
    return drawn[:ROWS], drawn[ROWS:]


def asked(name: str, of: Numbers) -> str:
    return f"what is {OPERATIONS[name].of([NUMBERS[n] for n in of])} ? answer :"


def english_question(rng: random.Random) -> str:
    return next(text for text in iter(lambda: story(rng).context, None) if text.endswith("answer :"))


def language(seed: int) -> dict:
    """French and English questions about belongings; prompts are English questions for the largest of three."""
    rng, (_, test) = random.Random(seed), numbers(seed)
    return {
        "positive": [french(rng).context for _ in range(ROWS)],
        "negative": [english_question(rng) for _ in range(ROWS)],
        "prompts": [asked("largest", of) for of in test],
        "towards": [NUMBERS_FR[max(of)] for of in test],
        "away": [NUMBERS[max(of)] for of in test],
        "words": ([w for w in NUMBERS_FR if w not in SHARED], [w for w in NUMBERS if w not in SHARED]),
    }


def operation(seed: int) -> dict:
    """Questions for the largest and for the smallest of the same three; prompts ask for the smallest."""
    train, test = numbers(seed)
    return {
        "positive": [asked("largest", of) for of in train],
        "negative": [asked("smallest", of) for of in train],
        "prompts": [asked("smallest", of) for of in test],
        "towards": [NUMBERS[max(of)] for of in test],
        "away": [NUMBERS[min(of)] for of in test],
        "words": None,
    }


@torch.no_grad()
def measured(model, tokenizer, what: dict) -> dict:
    """Shares of whole answers on either side, and for language the next token's probability of a number word."""
    written = generate_completions(model, tokenizer, what["prompts"], 3, batch_size=PROMPTS)
    sides = {
        side: fmean(text == f"{word} ." for text, word in zip(written, what[side], strict=True))
        for side in ("towards", "away")
    }
    if what["words"] is None:
        return sides
    inputs = tokenizer(what["prompts"], return_tensors="pt", return_token_type_ids=False)
    chances = model(**inputs).logits[:, -1].softmax(-1).mean(0)
    mass = [chances[tokenizer.convert_tokens_to_ids(words)].sum().item() for words in what["words"]]
    some = fmean(text.split()[:1] != [] and text.split()[0] in what["words"][0] for text in written)
    return {**sides, "positive": some, "mass": mass[0], "other_mass": mass[1]}


def steering(make) -> list[dict]:
    """Measure every way, set of blocks and strength, for each seed."""
    found = []
    for seed in SEEDS:
        what = make(seed)
        base, tokenizer = load_base()
        for method, token in WAYS:
            one = contrast(base, tokenizer, what["positive"], what["negative"], method, token, batch_size=ROWS)
            for layers in LAYERS if (method, token) == WAYS[0] else FEW:
                steered = one.attach(base, layers)
                for strength in STRENGTHS:
                    set_strength(steered, strength)
                    cell = dict(seed=seed, method=method, token=token, layers=layers, strength=strength)
                    found.append({**cell, **measured(steered, tokenizer, what)})
                base = steered.unload()
            if (method, token) == WAYS[0] and seed == SEEDS[0]:
                found[-1]["report"] = one.report.to_dict()
    return found


def starts(seed: int) -> dict[str, Contrast | None]:
    """What the training begins from: nothing, the vectors of 1, or those from rows and the model's own answers."""
    base, tokenizer = load_base()
    what, rows = language(seed), make_rows("train", ROWS, seed + 1)
    own = generate_completions(base, tokenizer, [row["prompt"] for row in rows], 8, batch_size=ROWS)
    ours = [(row, {**row, "completion": f" {text}"}) for row, text in zip(rows, own, strict=True) if text.strip()]
    right, wrong = ([both[side] for both in ours] for side in (0, 1))
    return {
        "zero": None,
        "language": contrast(base, tokenizer, what["positive"], what["negative"], batch_size=ROWS),
        "rows and own answers": contrast(base, tokenizer, right, wrong, token="mean", batch_size=ROWS),
    }


@torch.no_grad()
def mean_loss(model, batches) -> float:
    model.eval()
    return fmean(model(**batch).loss.item() for batch in batches)


def learn(model, train, validation, rate: float) -> list[tuple[int, float]]:
    """Train by AdamW at one rate after ten steps of warm-up; return (step, validation loss) now and then."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0)
    curve = [(0, mean_loss(model, validation))]
    for step, batch in enumerate(train, start=1):
        model.train()
        optimizer.param_groups[0]["lr"] = rate * min(1, step / 10)
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % EVERY == 0:
            curve.append((step, mean_loss(model, validation)))
    return curve


def warm_start() -> list[dict]:
    """Train a vector after every block on the demo task, from each start, at each rate, for each seed."""
    found, tokenizer = [], load_base()[1]
    validation = token_batches(make_rows("validation", 64), tokenizer, 64)
    for seed in SEEDS:
        train = token_batches(make_rows("train", STEPS * BATCH, seed + 1), tokenizer, BATCH)
        for name, one in starts(seed).items():
            for rate in RATES:
                base = load_base()[0]
                blocks = range(base.config.num_hidden_layers)
                model = one.attach(base, blocks) if one else attach(base, SteeringConfig(adapter=Vector()))
                curve = learn(model, train, validation, rate)
                reached = {str(t): next((step for step, loss in curve if loss <= t), None) for t in TARGETS}
                found.append(dict(start=name, rate=rate, seed=seed, reached=reached, curve=curve))
    return found


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    results = {"language": steering(language), "operation": steering(operation), "warm_start": warm_start()}
    results |= {
        "command": "python scripts/vector_results.py",
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": time.perf_counter() - began,
        "versions": {name: version(name) for name in PACKAGES},
    }
    (RESULTS / "vector.json").write_text(json.dumps(rounded(results)) + "\n")
    (RESULTS / "vector.md").write_text(page(results))


def rounded(value):
    """All floats to four digits after the point, which is finer than the seeds differ."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def cells(rows: list[dict], figure, **wanted) -> str:
    """The mean over seeds at every strength, as cells of a table."""
    of = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    means = [fmean(figure(row) for row in of if row["strength"] == strength) for strength in STRENGTHS]
    return " | ".join(f"{mean:.0%}" for mean in means)


def by_blocks(rows: list[dict], figure) -> list[str]:
    lines = [f"| blocks | {' | '.join(f's = {s:g}' for s in STRENGTHS)} |", "|---" * (1 + len(STRENGTHS)) + "|"]
    method, token = WAYS[0]
    for layers in LAYERS:
        name = ", ".join(map(str, layers))
        lines.append(f"| {name} | {cells(rows, figure, method=method, token=token, layers=layers)} |")
    return lines


def by_way(rows: list[dict], figure) -> list[str]:
    lines = [f"| way | blocks | {' | '.join(f's = {s:g}' for s in STRENGTHS)} |", "|---" * (2 + len(STRENGTHS)) + "|"]
    for layers in FEW:
        for method, token in WAYS:
            name = ", ".join(map(str, layers))
            shown = cells(rows, figure, method=method, token=token, layers=layers)
            lines.append(f"| {method}, {token} | {name} | {shown} |")
    return lines


def page(results: dict) -> str:
    """The page, figures only: how to read them is in docs/results/README.md."""
    said, done = results["language"], results["operation"]
    report = next(row["report"] for row in said if "report" in row)
    lines = [
        "# What contrastive vectors do to the bundled model",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}, {results['seconds']:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"Vectors after blocks, from {ROWS} rows a side; {PROMPTS} prompts that share no row with them; means over "
        f"{len(SEEDS)} seeds, each with rows and prompts of its own. s = 0 is the base model.",
        "",
        "## Language: French questions against English ones",
        "",
        'Rows end in "? réponse :" or "? answer :". Prompts are English ("what is the largest of three , nine and '
        'four ? answer :"). Difference of means at the last token; seed 0:',
        "",
        "| block | ‖v‖ | ‖v‖ / ‖h‖ | separation |",
        "|---|---|---|---|",
        *(
            f"| {one['layer']} | {one['norm']:.3g} | {one['relative']:.3f} | {one['separation']:.1%} |"
            for one in report["layers"]
        ),
        "",
        "The answer begins with a French number:",
        "",
        *by_blocks(said, lambda row: row["positive"]),
        "",
        "The next token's probability of a French number:",
        "",
        *by_blocks(said, lambda row: row["mass"]),
        "",
        "The answer is the right number in French and a full stop:",
        "",
        *by_blocks(said, lambda row: row["towards"]),
        "",
        "The answer is the right number in English and a full stop:",
        "",
        *by_blocks(said, lambda row: row["away"]),
        "",
        "Other ways, by the share of answers that begin with a French number (`mean, last` is the one above):",
        "",
        *by_way(said, lambda row: row["positive"]),
        "",
        "## Operation: questions for the largest against the same for the smallest",
        "",
        "Prompts ask for the smallest. The answer is the largest:",
        "",
        *by_blocks(done, lambda row: row["towards"]),
        "",
        "The answer is the smallest, which is right:",
        "",
        *by_blocks(done, lambda row: row["away"]),
        "",
        "## Warm start: a vector after every block, trained on the demo task",
        "",
        f"AdamW, {STEPS} steps of {BATCH} rows. `language` begins at the vectors above, `rows and own answers` at "
        f"those from {ROWS} training rows against the same prompts with the base model's own answers (mean over the "
        "answer's tokens), all at strength 1. Median over seeds (and each) of the steps to a validation loss:",
        "",
        f"| rate | start | loss at 0 | {' | '.join(f'to {t:g}' for t in TARGETS)} | loss at {STEPS} |",
        "|---" * (4 + len(TARGETS)) + "|",
    ]
    for rate in RATES:
        for name in dict.fromkeys(run["start"] for run in results["warm_start"]):
            runs = [run for run in results["warm_start"] if (run["start"], run["rate"]) == (name, rate)]
            ends = [f"{fmean(run['curve'][at][1] for run in runs):.2f}" for at in (0, -1)]
            reached = [_steps([run["reached"][str(t)] for run in runs]) for t in TARGETS]
            lines.append(f"| {rate:g} | {name} | {ends[0]} | {' | '.join(reached)} | {ends[1]} |")
    return "\n".join(lines) + "\n"


def _steps(steps: list[int | None]) -> str:
    never = STEPS + EVERY
    middle = median(never if step is None else step for step in steps)
    each = ", ".join("never" if step is None else str(step) for step in steps)
    return f"{'never' if middle == never else f'{middle:g}'} ({each})"


if __name__ == "__main__":
    main()
