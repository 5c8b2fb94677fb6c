"""Measure contrastive vectors on the bundled model, and write docs/results/vector.{json,md}.

    python scripts/vector_results.py

1. Language: steer English list operations by the difference of French and English questions, by blocks and strength.
2. Operation: steer questions for the smallest number by the difference of questions for the largest and the smallest.
3. Warm start: count the training steps of a vector adapter to a target loss, from zero and from contrastive vectors.
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
from demo_corpus import french, story

from actshift import SteeringConfig, Vector, attach, set_strength, token_batches
from actshift.analysis.contrast import Contrast, contrast
from actshift.compare.provenance import machine
from actshift.demo import load_base
from actshift.demo.task import NUMBERS, NUMBERS_FR, OPERATIONS, make_rows
from actshift.evaluation import generate_completions

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SEEDS = (0, 1, 2)
ROWS, PROMPTS = 64, 60
STRENGTHS = (-2, -1, 0, 0.5, 1, 1.25, 1.5, 2, 3, 4)
LAYERS = ([0], [1], [2], [3], [4], [5], [2, 3], [1, 2, 3], [0, 1, 2, 3, 4, 5])
METHODS = (("mean", "last"), ("pca", "last"), ("mean", "mean"))
FEW_LAYERS = ([2], [1, 2, 3])
"""Blocks on which all methods are measured; only the first method is measured on all of `LAYERS`."""
SHARED = set(NUMBERS) & set(NUMBERS_FR)
"""Words that both languages share, which identify neither."""
STEPS, EVERY, BATCH, RATES, TARGETS = 100, 5, 16, (0.05, 0.1), (4.0, 2.5, 2.0)
PACKAGES = ("actshift", "torch", "transformers", "peft")

Numbers = tuple[int, ...]


def numbers(seed: int) -> tuple[list[Numbers], list[Numbers]]:
    """Return disjoint lists of triples of different numbers: for the rows of a vector, and for its test prompts."""
    known = [n for n, word in enumerate(NUMBERS[:10]) if word not in SHARED]  # pretraining uses arguments below ten
    drawn = random.Random(seed).sample(list(permutations(known, 3)), ROWS + PROMPTS)
    return drawn[:ROWS], drawn[ROWS:]


def question(operation: str, arguments: Numbers) -> str:
    return f"what is {OPERATIONS[operation].of([NUMBERS[n] for n in arguments])} ? answer :"


def english_question(rng: random.Random) -> str:
    return next(text for text in iter(lambda: story(rng).context, None) if text.endswith("answer :"))


def language(seed: int) -> dict:
    """Return French and English questions about belongings; the prompts ask in English for the largest of three."""
    rng, (_, test) = random.Random(seed), numbers(seed)
    return {
        "positive": [french(rng).context for _ in range(ROWS)],
        "negative": [english_question(rng) for _ in range(ROWS)],
        "prompts": [question("largest", triple) for triple in test],
        "towards": [NUMBERS_FR[max(triple)] for triple in test],
        "away": [NUMBERS[max(triple)] for triple in test],
        "words": ([w for w in NUMBERS_FR if w not in SHARED], [w for w in NUMBERS if w not in SHARED]),
    }


def operation(seed: int) -> dict:
    """Return questions for the largest and for the smallest of the same numbers; the prompts ask for the smallest."""
    train, test = numbers(seed)
    return {
        "positive": [question("largest", triple) for triple in train],
        "negative": [question("smallest", triple) for triple in train],
        "prompts": [question("smallest", triple) for triple in test],
        "towards": [NUMBERS[max(triple)] for triple in test],
        "away": [NUMBERS[min(triple)] for triple in test],
        "words": None,
    }


@torch.no_grad()
def measure_answers(model, tokenizer, task: dict) -> dict:
    """Return the share of complete answers on each side; for languages also the probability of number words."""
    answers = generate_completions(model, tokenizer, task["prompts"], 3, batch_size=PROMPTS)
    sides = {
        side: fmean(text == f"{word} ." for text, word in zip(answers, task[side], strict=True))
        for side in ("towards", "away")
    }
    if task["words"] is None:
        return sides
    inputs = tokenizer(task["prompts"], return_tensors="pt", return_token_type_ids=False)
    probabilities = model(**inputs).logits[:, -1].softmax(-1).mean(0)
    mass = [probabilities[tokenizer.convert_tokens_to_ids(words)].sum().item() for words in task["words"]]
    positive = fmean(text.split()[:1] != [] and text.split()[0] in task["words"][0] for text in answers)
    return {**sides, "positive": positive, "mass": mass[0], "other_mass": mass[1]}


def steering(make_task) -> list[dict]:
    """Measure every method, set of blocks and strength, for each seed."""
    results = []
    for seed in SEEDS:
        task = make_task(seed)
        base, tokenizer = load_base()
        for method, token in METHODS:
            vectors = contrast(base, tokenizer, task["positive"], task["negative"], method, token, batch_size=ROWS)
            for layers in LAYERS if (method, token) == METHODS[0] else FEW_LAYERS:
                steered = vectors.attach(base, layers)
                for strength in STRENGTHS:
                    set_strength(steered, strength)
                    cell = dict(seed=seed, method=method, token=token, layers=layers, strength=strength)
                    results.append({**cell, **measure_answers(steered, tokenizer, task)})
                base = steered.unload()
            if (method, token) == METHODS[0] and seed == SEEDS[0]:
                results[-1]["report"] = vectors.report.to_dict()
    return results


def starts(seed: int) -> dict[str, Contrast | None]:
    """Return the starts of training: none, the language vectors, and vectors from rows and the model's own answers."""
    base, tokenizer = load_base()
    task, rows = language(seed), make_rows("train", ROWS, seed + 1)
    own = generate_completions(base, tokenizer, [row["prompt"] for row in rows], 8, batch_size=ROWS)
    pairs = [(row, {**row, "completion": f" {text}"}) for row, text in zip(rows, own, strict=True) if text.strip()]
    correct, wrong = ([pair[side] for pair in pairs] for side in (0, 1))
    return {
        "zero": None,
        "language": contrast(base, tokenizer, task["positive"], task["negative"], batch_size=ROWS),
        "rows and own answers": contrast(base, tokenizer, correct, wrong, token="mean", batch_size=ROWS),
    }


@torch.no_grad()
def mean_loss(model, batches) -> float:
    model.eval()
    return fmean(model(**batch).loss.item() for batch in batches)


def learn(model, train, validation, rate: float) -> list[tuple[int, float]]:
    """Train with AdamW at a constant rate after ten warm-up steps; return pairs of step and validation loss."""
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
    runs, tokenizer = [], load_base()[1]
    validation = token_batches(make_rows("validation", 64), tokenizer, 64)
    for seed in SEEDS:
        train = token_batches(make_rows("train", STEPS * BATCH, seed + 1), tokenizer, BATCH)
        for name, vectors in starts(seed).items():
            for rate in RATES:
                base = load_base()[0]
                blocks = range(base.config.num_hidden_layers)
                model = vectors.attach(base, blocks) if vectors else attach(base, SteeringConfig(adapter=Vector()))
                curve = learn(model, train, validation, rate)
                reached = {str(t): next((step for step, loss in curve if loss <= t), None) for t in TARGETS}
                runs.append(dict(start=name, rate=rate, seed=seed, reached=reached, curve=curve))
    return runs


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    results = {"language": steering(language), "operation": steering(operation), "warm_start": warm_start()}
    results |= {
        "command": "python scripts/vector_results.py",
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": time.perf_counter() - start,
        "versions": {name: version(name) for name in PACKAGES},
    }
    (RESULTS / "vector.json").write_text(json.dumps(rounded(results)) + "\n")
    (RESULTS / "vector.md").write_text(page(results))


def rounded(value):
    """Round all floats to four decimals, which is finer than the differences between seeds."""
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


def cells(rows: list[dict], figure, **selected) -> str:
    """Return the mean over seeds at every strength, as cells of a table."""
    matching = [row for row in rows if all(row[name] == value for name, value in selected.items())]
    means = [fmean(figure(row) for row in matching if row["strength"] == strength) for strength in STRENGTHS]
    return " | ".join(f"{mean:.0%}" for mean in means)


def by_blocks(rows: list[dict], figure) -> list[str]:
    lines = [f"| blocks | {' | '.join(f's = {s:g}' for s in STRENGTHS)} |", "|---" * (1 + len(STRENGTHS)) + "|"]
    method, token = METHODS[0]
    for layers in LAYERS:
        name = ", ".join(map(str, layers))
        lines.append(f"| {name} | {cells(rows, figure, method=method, token=token, layers=layers)} |")
    return lines


def by_method(rows: list[dict], figure) -> list[str]:
    lines = [
        f"| method | blocks | {' | '.join(f's = {s:g}' for s in STRENGTHS)} |",
        "|---" * (2 + len(STRENGTHS)) + "|",
    ]
    for layers in FEW_LAYERS:
        for method, token in METHODS:
            name = ", ".join(map(str, layers))
            shown = cells(rows, figure, method=method, token=token, layers=layers)
            lines.append(f"| {method}, {token} | {name} | {shown} |")
    return lines


def page(results: dict) -> str:
    """Return the page, without the discussion, which is in docs/results/README.md."""
    languages, operations = results["language"], results["operation"]
    report = next(row["report"] for row in languages if "report" in row)
    lines = [
        "# Contrastive vectors on the bundled model",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}, {results['seconds']:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"The vectors are added after blocks and come from {ROWS} rows on each side. They are tested on {PROMPTS} "
        f"prompts that are not among these rows. All figures are means over {len(SEEDS)} seeds, which change rows and "
        "prompts. s is the strength; s = 0 is the base model.",
        "",
        "## Language: French against English questions",
        "",
        'Rows end in "? réponse :" or "? answer :". The prompts are English ("what is the largest of three , nine and '
        'four ? answer :"). The vectors are differences of means at the last token. For seed 0:',
        "",
        "| block | ‖v‖ | ‖v‖ / ‖h‖ | separation |",
        "|---|---|---|---|",
        *(
            f"| {layer['layer']} | {layer['norm']:.3g} | {layer['relative']:.3f} | {layer['separation']:.1%} |"
            for layer in report["layers"]
        ),
        "",
        "Share of answers that begin with a French number:",
        "",
        *by_blocks(languages, lambda row: row["positive"]),
        "",
        "Probability that the next token is a French number:",
        "",
        *by_blocks(languages, lambda row: row["mass"]),
        "",
        "Share of answers with the correct number in French and a full stop:",
        "",
        *by_blocks(languages, lambda row: row["towards"]),
        "",
        "Share of answers with the correct number in English and a full stop:",
        "",
        *by_blocks(languages, lambda row: row["away"]),
        "",
        "Share of answers that begin with a French number, for other methods (`mean, last` is the one above):",
        "",
        *by_method(languages, lambda row: row["positive"]),
        "",
        "## Operation: questions for the largest against the smallest of the same numbers",
        "",
        "The prompts ask for the smallest number. Share of answers with the largest number:",
        "",
        *by_blocks(operations, lambda row: row["towards"]),
        "",
        "Share of answers with the smallest number, which is correct:",
        "",
        *by_blocks(operations, lambda row: row["away"]),
        "",
        "## Warm start: a vector after every block, trained on the demo task",
        "",
        f"AdamW, {STEPS} steps of {BATCH} rows. `language` starts from the vectors above. `rows and own answers` "
        f"starts from the difference of {ROWS} training rows and the same prompts with the base model's own answers, "
        "averaged over the tokens of the answer. All starts have strength 1. The table shows the median (and each "
        "value) over seeds of the steps to a validation loss:",
        "",
        f"| rate | start | loss at 0 | {' | '.join(f'to {t:g}' for t in TARGETS)} | loss at {STEPS} |",
        "|---" * (4 + len(TARGETS)) + "|",
    ]
    for rate in RATES:
        for name in dict.fromkeys(run["start"] for run in results["warm_start"]):
            runs = [run for run in results["warm_start"] if (run["start"], run["rate"]) == (name, rate)]
            ends = [f"{fmean(run['curve'][i][1] for run in runs):.2f}" for i in (0, -1)]
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
