"""Train by GRPO from a half-learned answer: ``python scripts/grpo_results.py --seeds 3``.

The bundled model is fine-tuned for a few steps on the demo task, until it sometimes gives the French sentence. An
adapter is then trained by GRPO: it is rewarded for the correct sentence but never shown one. The script writes
docs/results/grpo.{json,md,png}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from datasets import Dataset

from actshift.compare.provenance import provenance
from actshift.demo import BASE_DIR
from actshift.demo.run import one_thread
from actshift.demo.task import make_rows
from actshift.evaluation import generate_completions
from actshift.loading import load_model, load_tokenizer
from actshift.training import TrainSettings, fit, train
from actshift.training.build import adapt
from actshift.training.configs import AdapterSpec

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RATES = {"steering": (3e-3, 1e-2, 2e-2), "lora": (1e-3, 3e-3, 6e-3)}
LABELS = {"steering": "post-block r=8", "lora": "LoRA r=8, every linear map"}
START_STEPS, STEPS, PROMPTS, SAMPLES = 42, 60, 8, 8
TOKENS, TEST_ROWS, VALIDATION_ROWS = 6, 500, 300


def make_start(folder: Path) -> Path:
    """Fine-tune the bundled model for a few steps on the task, and return its folder."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in make_rows("train", START_STEPS * 32, seed=100)))
    settings = TrainSettings(
        model=str(BASE_DIR), data=str(rows), out=str(folder / "start"), method="full", objective="sft",
        max_steps=START_STEPS, batch_size=32, gradient_accumulation=1,
        learning_rate=1e-4, schedule="constant", warmup=0, seed=100,
    )  # fmt: skip
    train(settings)
    return folder / "start"


def score(model: Any, tokenizer: Any, split: str) -> dict[str, float]:
    """Return the share of correct answers on a split: greedy, and two samples for each row at temperature 1."""
    rows = make_rows(split, TEST_ROWS if split == "test" else VALIDATION_ROWS)
    shares = {}
    for name, temperature, times in (("greedy", 0.0, 1), ("sampled", 1.0, 2)):
        torch.manual_seed(0)
        completions = generate_completions(
            model, tokenizer, [row["prompt"] for row in rows] * times, TOKENS, 250, temperature=temperature
        )
        right = [text.strip() == row["completion"].strip() for text, row in zip(completions, rows * times, strict=True)]
        shares[name] = mean(right)
    return shares


def run(start: Path, method: str, rate: float, seed: int) -> tuple[dict[str, Any], Any]:
    """Train an adapter by GRPO; return its measurements, with the reward at each step, and the model."""
    model, tokenizer = load_model(start, dtype="float32")
    settings = TrainSettings(
        method=method, objective="grpo", reward=("right_answer",), generations=SAMPLES, max_new_tokens=TOKENS,
        max_steps=STEPS, batch_size=PROMPTS * SAMPLES, gradient_accumulation=1, learning_rate=rate, seed=seed,
    )  # fmt: skip
    adapted = adapt(model, AdapterSpec.from_settings(settings), STEPS)
    rows = [
        {"prompt": row["prompt"], "answer": row["completion"].strip()}
        for row in make_rows("train", STEPS * PROMPTS, seed)
    ]
    start_time = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        fitted = fit(adapted, tokenizer, Dataset.from_list(rows), settings, out=out, title=f"{method} {rate:g} {seed}")
        state = Path(out, "checkpoints", f"checkpoint-{STEPS}", "trainer_state.json")
        rewards = [entry["reward"] for entry in json.loads(state.read_text())["log_history"] if "reward" in entry]
    figures = {
        "method": method,
        "rate": rate,
        "seed": seed,
        "trainable": fitted.trainable,
        "cpu_seconds": time.process_time() - start_time,
        "rewards": rewards,
        "validation": score(adapted, tokenizer, "validation"),
    }
    return figures, adapted


def measure(seeds: int) -> dict[str, Any]:
    """Choose each method's rate with the first seed on validation rows, and run the other seeds at that rate."""
    with tempfile.TemporaryDirectory() as folder:
        start = make_start(Path(folder))
        before = {split: score(*load_model(start, dtype="float32"), split) for split in ("validation", "test")}
        print("the start:", before, flush=True)
        sweeps, runs, tokenizer = {}, {}, load_tokenizer(str(start))
        for method, rates in RATES.items():
            sweep = [run(start, method, rate, 0) for rate in rates]
            best = max(sweep, key=lambda trial: trial[0]["validation"]["sampled"])
            chosen = [best, *(run(start, method, best[0]["rate"], seed) for seed in range(1, seeds))]
            sweeps[method] = [figures for figures, _ in sweep]
            runs[method] = [{**figures, "test": score(model, tokenizer, "test")} for figures, model in chosen]
    made = provenance(f"python scripts/grpo_results.py --seeds {seeds}")
    return {**made, "start": before, "sweeps": sweeps, "runs": runs}


def write_table(results: dict[str, Any]) -> None:
    """Write the page with its provenance."""
    start = results["start"]["test"]
    lines = [
        "# GRPO from a half-learned answer",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"The start is the bundled model after {START_STEPS} steps of full fine-tuning on the demo task (32 rows each, "
        f"rate 1e-4). It gives the correct French sentence in {start['sampled']:.1%} of samples at temperature 1, and "
        f"in {start['greedy']:.1%} of greedy completions. GRPO then trains a new adapter for {STEPS} steps without a "
        f"KL term. Each step has {PROMPTS} questions with {SAMPLES} samples each. The reward is 1 for the correct "
        f"sentence and 0 for any other (`--reward right_answer`). The test has {TEST_ROWS} questions that no training "
        f"set contains. Spread is the standard deviation over {len(results['runs']['steering'])} seeds, which change "
        "the questions, the initial weights and the samples.",
        "",
        "| method | trainable | rate | mean reward, sampled | spread | seeds | correct, greedy | spread | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| the start | – | – | {start['sampled']:.1%} | – | – | {start['greedy']:.1%} | – | – |",
    ]
    for method, runs in results["runs"].items():
        cells = []
        for name in ("sampled", "greedy"):
            shares = [figures["test"][name] for figures in runs]
            spread = f"{stdev(shares):.1%}" if len(shares) > 1 else "–"
            cells += [f"**{mean(shares):.1%}**", spread, ", ".join(f"{share:.1%}" for share in shares)]
        lines.append(f"| {LABELS[method]} | {runs[0]['trainable']:,} | {runs[0]['rate']:g} | {' | '.join(cells)} |")
    lines += [
        "",
        "![the reward over the steps](grpo.png)",
        "",
        "Mean reward of the first seed on validation rows, which chose the rates:",
        "",
    ]
    for method, sweep in results["sweeps"].items():
        rewards = ", ".join(f"{trial['validation']['sampled']:.1%} at {trial['rate']:g}" for trial in sweep)
        lines.append(f"* {LABELS[method]}: {rewards}.")
    (RESULTS / "grpo.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(results: dict[str, Any]) -> None:
    """Draw the reward of the training samples over the steps, one line for each seed, averaged over five steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    for method, colour in (("lora", "#94a3b8"), ("steering", "#c2410c")):
        for seed, figures in enumerate(results["runs"][method]):
            rewards = figures["rewards"]
            smooth = [100 * mean(rewards[max(0, i - 4) : i + 1]) for i in range(len(rewards))]
            label = LABELS[method] if seed == 0 else None
            axes.plot(range(1, len(smooth) + 1), smooth, color=colour, label=label, linewidth=1.4)
    axes.axhline(100 * results["start"]["test"]["sampled"], color="#475569", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="mean reward of the samples, %", ylim=(0, 102))
    seeds = len(results["runs"]["steering"])
    axes.set_title(f"GRPO from a half-learned answer, {seeds} seeds (dotted: the start)", loc="left", fontsize=11)
    axes.legend(loc="center right", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "grpo.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--redraw", action="store_true", help="use the existing grpo.json")
    arguments = parser.parse_args()
    stored = RESULTS / "grpo.json"
    if arguments.redraw:
        results = json.loads(stored.read_text(encoding="utf-8"))
    else:
        with one_thread():
            results = measure(arguments.seeds)
        stored.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_table(results)
    draw(results)
    print((RESULTS / "grpo.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
