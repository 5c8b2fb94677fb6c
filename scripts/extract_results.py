"""Extract adapters from a fine-tuned bundled model and write docs/results/extract.{json,md,png}."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from datasets import Dataset

from actshift.analysis.batches import token_batches
from actshift.analysis.equivalence import update_between
from actshift.analysis.extract import ModelPair, distill, extract, oracle
from actshift.compare.provenance import provenance
from actshift.demo import METHODS, load_base
from actshift.demo.run import BATCH, MAX_NEW_TOKENS, STEPS, TEST_ROWS, one_thread
from actshift.demo.task import make_rows
from actshift.evaluation import evaluate
from actshift.evaluation.generation import generate_completions
from actshift.training import TrainSettings, fit

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RANKS = (1, 2, 4, 8, 16, 32)
TEXT_SEED = 100


def measure(steps: int, text_rows: int, distill_steps: int, test_rows: int) -> dict:
    """Fine-tune, extract and distill at every rank, and return all measurements."""
    start = time.perf_counter()
    test = make_rows("test", test_rows)

    def accuracy(model) -> float:
        return evaluate(model, tokenizer, test, MAX_NEW_TOKENS, batch_size=250).accuracy

    base, tokenizer = load_base()
    finetuned = _finetuned(steps)
    results = {"steps": steps, "test_rows": test_rows, "distill_steps": distill_steps, "text_rows": text_rows}
    results |= {"base": accuracy(base), "finetuned": accuracy(finetuned), "checkpoint": finetuned.num_parameters()}
    _log(start, f"base {results['base']:.1%}, fine-tuned {results['finetuned']:.1%}")
    batches = token_batches(_text(finetuned, tokenizer, text_rows), tokenizer, BATCH)
    results["tokens"] = sum(int(batch["attention_mask"].sum()) for batch in batches)
    oracle_report = oracle(ModelPair.of(base, finetuned), batches, RANKS, 8, steps=200)
    results["oracle"] = oracle_report.to_dict()
    oracle_report.figure().savefig(RESULTS / "extract_oracle.png")
    _log(start, f"KL: base {oracle_report.kl_base:.4f}, oracle {oracle_report.kl_oracle:.2g}")
    results["rows"] = [_extracted(rank, finetuned, batches, distill_steps, accuracy, start) for rank in RANKS]
    results["svd"] = _svd_loras(finetuned, [row["parameters"] for row in results["rows"]], accuracy, start)
    results["seconds"] = time.perf_counter() - start
    return results


def _log(start: float, message: str) -> None:
    print(f"{time.perf_counter() - start:6.0f} s  {message}", flush=True)


def _finetuned(steps: int):
    """Return the bundled model after full fine-tuning with the settings of the demo."""
    model, tokenizer = load_base()
    rows = Dataset.from_list(make_rows("train", steps * BATCH, seed=0))
    rate = METHODS["full"].learning_rate
    settings = TrainSettings(learning_rate=rate, max_steps=steps, batch_size=BATCH, gradient_accumulation=1, seed=0)
    fit(model, tokenizer, rows, settings, title="full fine-tuning")
    return model.eval()


def _text(finetuned, tokenizer, rows: int) -> list[dict[str, str]]:
    """Return unlabelled text: prompts of the training split with the completions of the fine-tuned model."""
    prompts = [row["prompt"] for row in make_rows("train", rows, seed=TEXT_SEED)]
    answers = generate_completions(finetuned, tokenizer, prompts, MAX_NEW_TOKENS, batch_size=250)
    return [{"prompt": p, "completion": f" {answer.strip()}"} for p, answer in zip(prompts, answers, strict=True)]


def _extracted(rank: int, finetuned, batches, steps: int, accuracy: Callable, start: float) -> dict:
    extraction = extract(load_base()[0], finetuned, batches, rank, linear=False, ranks=(rank,), nonlinear_steps=0)
    model, report = extraction.model, extraction.report
    row = {"rank": rank, "parameters": report.parameters, "kl": report.kl["closed_form"]}
    row |= {"ridges": [layer.ridge for layer in report.layers], "closed_form": accuracy(model)}
    pair = ModelPair.of(load_base()[0], finetuned)
    pair = ModelPair(model, finetuned, pair.blocks, pair.finetuned_blocks, pair.outside)
    row |= {"distilled_kl": distill(pair, batches, steps, learning_rate=3e-3), "distilled": accuracy(model)}
    _log(start, f"rank {rank}: closed form {row['closed_form']:.1%}, distilled {row['distilled']:.1%}")
    return row


def _svd_loras(finetuned, budgets: list[int], accuracy: Callable, start: float) -> list[dict]:
    """Truncate the update of every linear map in the blocks to the singular values that use each budget best.

    One rank of a map costs as many parameters as the map has inputs and outputs. The ranks with the largest σ² per
    parameter are kept, over all maps.
    """
    base, _ = load_base()
    update = update_between(base, finetuned)
    maps = {name: delta.double() for name, delta in update.deltas.items() if ".layers." in name and delta.ndim == 2}
    parts = {name: torch.linalg.svd(delta, full_matrices=False) for name, delta in maps.items()}
    candidates = sorted(
        ((value.item() ** 2 / sum(maps[name].shape), name) for name, part in parts.items() for value in part.S),
        reverse=True,
    )
    one_rank = sum(sum(delta.shape) for delta in maps.values())
    rows = []
    for budget in sorted({*budgets, *(rank * one_rank for rank in RANKS)}):
        ranks, left = dict.fromkeys(maps, 0), budget
        for _, name in candidates:
            if (cost := sum(maps[name].shape)) <= left:
                ranks[name], left = ranks[name] + 1, left - cost
        model = deepcopy(base)
        with torch.no_grad():
            for name, rank in ranks.items():
                u, s, v = parts[name]
                model.get_parameter(name).add_((u[:, :rank] * s[:rank] @ v[:rank]).float())
        rows.append({"parameters": budget - left, "budget": budget, "accuracy": accuracy(model)})
        _log(start, f"SVD LoRA, {budget - left:,} parameters: {rows[-1]['accuracy']:.1%}")
    return rows


def write_table(results: dict) -> None:
    """Write the page with its provenance."""
    base, gain = results["base"], results["finetuned"] - results["base"]
    svd = {row["budget"]: row for row in results["svd"]}
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        "# A fine-tuned checkpoint as an adapter",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}; {versions}.",
        "",
        f"The bundled model after full fine-tuning ({results['steps']} steps, as in the demo) answers "
        f"**{results['finetuned']:.1%}** of {results['test_rows']:,} unseen questions correctly, the untouched base "
        f"{base:.1%}. Linear post-block adapters were extracted from it on {results['text_rows']:,} texts "
        f"({results['tokens']:,} tokens). The fine-tuned model wrote these texts itself from prompts of the training "
        "split, so no label was used. Recovered is the share of the gain in accuracy. Distilled means "
        f"{results['distill_steps']} steps on KL at an untuned rate. One seed, {results['seconds'] / 60:.0f} minutes "
        "in all.",
        "",
        "| rank | parameters | checkpoint / adapter size | closed form | recovered | distilled | recovered | "
        "KL closed form | KL distilled | SVD LoRA, equal parameters |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        recovered = [(row[name] - base) / gain for name in ("closed_form", "distilled")]
        lines.append(
            f"| {row['rank']} | {row['parameters']:,} | {results['checkpoint'] / row['parameters']:.0f} × | "
            f"{row['closed_form']:.1%} | {recovered[0]:.1%} | **{row['distilled']:.1%}** | {recovered[1]:.1%} | "
            f"{row['kl']:.4f} | {row['distilled_kl']:.4f} | {svd[row['parameters']]['accuracy']:.1%} |"
        )
    lines += ["", *(f"* {line}" for line in _conclusions(results)), "", *_oracle_table(results["oracle"])]
    (RESULTS / "extract.md").write_text("\n".join(lines), encoding="utf-8")


def _oracle_table(oracle_report: dict) -> list[str]:
    """Return the table of oracle shifts by block; JSON has turned the ranks of the report into strings."""
    lines = [
        "Oracle shifts by block: their size relative to the activation, the share of their energy in the first "
        "direction and in the first eight, and the share of their variance (R²) that a map of the activation predicts "
        "on held-out texts.",
        "",
        "| block | size | energy, 1 | energy, 8 | R² linear | R² linear, rank 8 | R² SiLU, rank 8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in oracle_report["layers"]:
        energy, r2 = ({int(rank): value for rank, value in layer[name].items()} for name in ("energy", "r2"))
        lines.append(
            f"| {layer['layer']} | {layer['size']:.1%} | {energy[1]:.1%} | {energy[8]:.1%} | "
            f"{layer['r2_linear']:.3f} | {r2[8]:.3f} | {layer['r2_nonlinear']:.3f} |"
        )
    return [*lines, "", "![The oracle](extract_oracle.png)", ""]


def _conclusions(results: dict) -> list[str]:
    base, gain, exact = results["base"], results["finetuned"] - results["base"], results["oracle"]
    sentences = []
    for name, label in (("closed_form", "in closed form"), ("distilled", "distilled")):
        enough = [row for row in results["rows"] if row[name] - base >= 0.9 * gain]
        best = max(results["rows"], key=lambda row: row[name])
        row = enough[0] if enough else best
        share = (row[name] - base) / gain
        lead = (
            f"The lowest rank that recovers 90 % of the gain {label} is {row['rank']}"
            if enough
            else f"No rank up to {RANKS[-1]} recovers 90 % of the gain {label}; the best is rank {row['rank']}"
        )
        sentences.append(
            f"{lead}. It recovers {share:.1%} with {row['parameters']:,} parameters, "
            f"{results['checkpoint'] / row['parameters']:.1f} times fewer than the checkpoint."
        )
        sentences.append(_svd_sentence(row[name], row["parameters"], results["svd"]))
    outside = ", ".join(exact["outside"]) or "nothing"
    sentences.append(
        f"KL to the fine-tuned model's next tokens, in nats: {exact['kl_base']:.3g} for the base, "
        f"{exact['kl_oracle']:.3g} for the exact oracle. Fine-tuning also changed weights outside the blocks, which no "
        f"shift reaches: {outside}."
    )
    return sentences


def _svd_sentence(accuracy: float, parameters: int, loras: list[dict]) -> str:
    """Return a sentence about the smallest truncated-SVD LoRA that is at least as accurate."""
    for smaller, lora in zip([None, *loras], loras, strict=False):
        if lora["accuracy"] >= accuracy:
            below = (
                f" The next smaller one has {smaller['parameters']:,} and answers {smaller['accuracy']:.1%} correctly."
                if smaller
                else ""
            )
            return (
                "LoRAs truncated from the update by SVD see no data and are not distilled. The smallest one that is as "
                f"accurate has {lora['parameters']:,} parameters, {lora['parameters'] / parameters:.1f} times as "
                f"many.{below}"
            )
    return f"No LoRA truncated from the update by SVD, up to {loras[-1]['parameters']:,} parameters, is as accurate."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--text-rows", type=int, default=1024)
    parser.add_argument("--distill-steps", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--redraw", action="store_true", help="use the existing extract.json")
    arguments = parser.parse_args()
    stored = RESULTS / "extract.json"
    if arguments.redraw:
        results = json.loads(stored.read_text(encoding="utf-8"))
    else:
        options = {name: value for name, value in vars(arguments).items() if name != "redraw"}
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
        with one_thread():
            results = {**provenance(f"python scripts/extract_results.py {flags}"), **measure(**options)}
        stored.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_table(results)
    print((RESULTS / "extract.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
