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
from actshift.demo import load_base
from actshift.demo.methods import METHODS
from actshift.demo.run import BATCH, MAX_NEW_TOKENS, STEPS, TEST_ROWS, one_thread
from actshift.demo.task import make_rows
from actshift.evaluation import evaluate
from actshift.evaluation.generation import generate_completions
from actshift.training import TrainSettings, fit

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RANKS = (1, 2, 4, 8, 16, 32)
TEXT_SEED = 100


def measure(steps: int, text_rows: int, distill_steps: int, test_rows: int) -> dict:
    """Return every figure, of one run."""
    start = time.perf_counter()
    test = make_rows("test", test_rows)

    def accuracy(model) -> float:
        return evaluate(model, tokenizer, test, MAX_NEW_TOKENS, batch_size=250).accuracy

    base, tokenizer = load_base()
    finetuned = _finetuned(steps)
    results = {"steps": steps, "test_rows": test_rows, "distill_steps": distill_steps, "text_rows": text_rows}
    results |= {"base": accuracy(base), "finetuned": accuracy(finetuned), "checkpoint": finetuned.num_parameters()}
    _say(start, f"base {results['base']:.1%}, fine-tuned {results['finetuned']:.1%}")
    batches = token_batches(_text(finetuned, tokenizer, text_rows), tokenizer, BATCH)
    results["tokens"] = sum(int(batch["attention_mask"].sum()) for batch in batches)
    found = oracle(ModelPair.of(base, finetuned), batches, RANKS, 8, steps=200)
    results["oracle"] = found.to_dict()
    found.figure().savefig(RESULTS / "extract_oracle.png")
    _say(start, f"KL: base {found.kl_base:.4f}, oracle {found.kl_oracle:.2g}")
    results["rows"] = [_extracted(rank, finetuned, batches, distill_steps, accuracy, start) for rank in RANKS]
    results["svd"] = _svd_loras(finetuned, [row["parameters"] for row in results["rows"]], accuracy, start)
    results["seconds"] = time.perf_counter() - start
    return results


def _say(start: float, what: str) -> None:
    print(f"{time.perf_counter() - start:6.0f} s  {what}", flush=True)


def _finetuned(steps: int):
    """Fine-tune every weight, as the demo does."""
    model, tokenizer = load_base()
    rows = Dataset.from_list(make_rows("train", steps * BATCH, seed=0))
    rate = METHODS["full"].learning_rate
    settings = TrainSettings(learning_rate=rate, max_steps=steps, batch_size=BATCH, gradient_accumulation=1, seed=0)
    fit(model, tokenizer, rows, settings, title="full fine-tuning")
    return model.eval()


def _text(finetuned, tokenizer, rows: int) -> list[dict[str, str]]:
    """Write text without labels: prompts of the training split, continued by the fine-tuned model itself."""
    prompts = [row["prompt"] for row in make_rows("train", rows, seed=TEXT_SEED)]
    answers = generate_completions(finetuned, tokenizer, prompts, MAX_NEW_TOKENS, batch_size=250)
    return [{"prompt": p, "completion": f" {answer.strip()}"} for p, answer in zip(prompts, answers, strict=True)]


def _extracted(rank: int, finetuned, batches, steps: int, accuracy: Callable, start: float) -> dict:
    found = extract(load_base()[0], finetuned, batches, rank, linear=False, ranks=(rank,), nonlinear_steps=0)
    row = {"rank": rank, "parameters": found.report.parameters, "kl": found.report.kl["closed_form"]}
    row |= {"ridges": [layer.ridge for layer in found.report.layers], "closed_form": accuracy(found.model)}
    twins = ModelPair.of(load_base()[0], finetuned)
    twins = ModelPair(found.model, finetuned, twins.blocks, twins.finetuned_blocks, twins.outside)
    row |= {"distilled_kl": distill(twins, batches, steps, learning_rate=3e-3), "distilled": accuracy(found.model)}
    _say(start, f"rank {rank}: closed form {row['closed_form']:.1%}, distilled {row['distilled']:.1%}")
    return row


def _svd_loras(finetuned, budgets: list[int], accuracy: Callable, start: float) -> list[dict]:
    """Cut the update of every linear map in the blocks to the singular values that fit each budget best.

    A rank of a map costs its inputs + outputs; those of largest σ² a parameter are kept, whatever the map.
    """
    base, _ = load_base()
    update = update_between(base, finetuned)
    maps = {name: delta.double() for name, delta in update.deltas.items() if ".layers." in name and delta.ndim == 2}
    parts = {name: torch.linalg.svd(delta, full_matrices=False) for name, delta in maps.items()}
    offers = sorted(
        ((value.item() ** 2 / sum(maps[name].shape), name) for name, part in parts.items() for value in part.S),
        reverse=True,
    )
    each = sum(sum(delta.shape) for delta in maps.values())
    rows = []
    for budget in sorted({*budgets, *(rank * each for rank in RANKS)}):
        ranks, left = dict.fromkeys(maps, 0), budget
        for _, name in offers:
            if (cost := sum(maps[name].shape)) <= left:
                ranks[name], left = ranks[name] + 1, left - cost
        model = deepcopy(base)
        with torch.no_grad():
            for name, rank in ranks.items():
                u, s, v = parts[name]
                model.get_parameter(name).add_((u[:, :rank] * s[:rank] @ v[:rank]).float())
        rows.append({"parameters": budget - left, "budget": budget, "accuracy": accuracy(model)})
        _say(start, f"SVD LoRA, {budget - left:,} parameters: {rows[-1]['accuracy']:.1%}")
    return rows


def write_table(results: dict) -> None:
    """Write the table, with the command that made it."""
    base, gain = results["base"], results["finetuned"] - results["base"]
    svd = {row["budget"]: row for row in results["svd"]}
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        "# A fine-tuned checkpoint as an adapter",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}; {versions}.",
        "",
        f"The bundled model, fine-tuned in every weight ({results['steps']} steps, as in the demo), is right in "
        f"**{results['finetuned']:.1%}** of {results['test_rows']:,} unseen questions, the untouched base in "
        f"{base:.1%}. Linear post-block adapters were extracted from it on {results['text_rows']:,} texts "
        f"({results['tokens']:,} tokens) that it wrote itself from prompts of the training split: no label was used. "
        f"Recovered is the share of the gain; distilled means {results['distill_steps']} steps on KL, at an untuned "
        f"rate. One seed, {results['seconds'] / 60:.0f} minutes in all.",
        "",
        "| rank | parameters | checkpoint over it | closed form | recovered | distilled | recovered | KL closed form | "
        "KL distilled | SVD LoRA, equal parameters |",
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


def _oracle_table(found: dict) -> list[str]:
    """Show the oracle shifts by block; the ranks of a report that went through JSON are texts."""
    lines = [
        "The oracle shifts, block by block: their size over the activation's, the share of their energy in the first "
        "direction and in eight, and how much of their variance a map of the activation predicts on held-out texts.",
        "",
        "| block | size | energy, 1 | energy, 8 | R² linear | R² linear, rank 8 | R² SiLU, rank 8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in found["layers"]:
        energy, r2 = ({int(rank): value for rank, value in layer[name].items()} for name in ("energy", "r2"))
        lines.append(
            f"| {layer['layer']} | {layer['size']:.1%} | {energy[1]:.1%} | {energy[8]:.1%} | "
            f"{layer['r2_linear']:.3f} | {r2[8]:.3f} | {layer['r2_nonlinear']:.3f} |"
        )
    return [*lines, "", "![The oracle](extract_oracle.png)", ""]


def _conclusions(results: dict) -> list[str]:
    base, gain, found = results["base"], results["finetuned"] - results["base"], results["oracle"]
    said = []
    for name, label in (("closed_form", "in closed form"), ("distilled", "distilled")):
        enough = [row for row in results["rows"] if row[name] - base >= 0.9 * gain]
        best = max(results["rows"], key=lambda row: row[name])
        row = enough[0] if enough else best
        share = (row[name] - base) / gain
        lead = (
            f"The first rank that recovers 90 % of the gain {label} is {row['rank']}"
            if enough
            else (f"No rank up to {RANKS[-1]} recovers 90 % of the gain {label}; the best, rank {row['rank']}, does")
        )
        said.append(
            f"{lead}: {share:.1%}, with {row['parameters']:,} parameters, "
            f"{results['checkpoint'] / row['parameters']:.1f} times fewer than the checkpoint."
        )
        said.append(_svd_for(row[name], row["parameters"], results["svd"]))
    outside = ", ".join(found["outside"]) or "nothing"
    said.append(
        f"KL of the next tokens to the fine-tuned model, in nats: the base {found['kl_base']:.3g}, the exact oracle "
        f"{found['kl_oracle']:.3g}. What fine-tuning changed outside the blocks, where no shift reaches: {outside}."
    )
    return said


def _svd_for(accuracy: float, parameters: int, tried: list[dict]) -> str:
    """Say which LoRA cut by SVD is as good, of the sizes that were tried."""
    for smaller, one in zip([None, *tried], tried, strict=False):
        if one["accuracy"] >= accuracy:
            below = (
                f"; the next smaller, of {smaller['parameters']:,}, is right in {smaller['accuracy']:.1%}"
                if smaller
                else ""
            )
            return (
                "Of the LoRAs cut from the update by SVD, which see no data and are not distilled, the first that is "
                f"as good has {one['parameters']:,} parameters, {one['parameters'] / parameters:.1f} times as "
                f"many{below}."
            )
    return f"No LoRA cut from the update by SVD, up to {tried[-1]['parameters']:,} parameters, is as good."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--text-rows", type=int, default=1024)
    parser.add_argument("--distill-steps", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--redraw", action="store_true", help="use the extract.json that is there")
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
