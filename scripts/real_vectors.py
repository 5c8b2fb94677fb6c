"""Steer SmolLM2-135M-Instruct along contrast vectors of equal side effects; write docs/results/real/vectors.{json,md}.

    python scripts/real_vectors.py --model FOLDER     # the smollm2 folder of scripts/real_models.py, or a hub id

Finished cells are kept in the JSON file, so a second run continues after the last one. Protocol, fixed before any
score was seen:

* Vectors: differences of 24 pairs of answers to the same request, rendered by the chat template, averaged over the
  tokens of the answer, after the middle block (the defaults of `actshift vector`, with `--token mean`).
* Methods: mean and pca (added), ablate and gate (of the mean difference), and as a control a random vector of the
  length of the mean difference, added.
* Strength: `calibrate` at 1 nat on 16 general requests, none of them among the pairs or the test prompts.
* Test: 40 prompts per property, 24 greedy tokens. Scores of a text, all from fixed word lists:
  language: French words / (French + English words), 0 without either; sentiment: log((P + ½) / (N + ½)) of positive
  and negative words; formality: the same of formal words against informal words, contractions and exclamation marks.
  Second score of sentiment: the unsteered model's log p(" positive") - log p(" negative") after the text.
* Effect: mean score minus that of the unsteered model on the same prompts; 95 % bootstrap interval over prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import real_vector_texts as texts
import torch

from actshift import calibrate, contrast, set_strength
from actshift.analysis.contrast import Contrast
from actshift.compare.provenance import machine
from actshift.data import render_prompt
from actshift.evaluation.calibrate import kl_divergence
from actshift.evaluation.generation import generation_config
from actshift.evaluation.prompts import pad_left
from actshift.loading import load_model
from actshift.tuner import steering_layers

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "real"
TARGET, TOKENS, BATCH, RESAMPLES = 1.0, 24, 10, 10_000
METHODS = {"mean": ("mean", "add"), "pca": ("pca", "add"), "ablate": ("mean", "ablate"), "gate": ("mean", "gate"),
           "random": ("mean", "add")}  # fmt: skip
PAIRS = {
    "language": texts.LANGUAGE_PAIRS,
    "sentiment": texts.SENTIMENT_PAIRS,
    "formality": texts.FORMALITY_PAIRS,
}
PROMPTS = {
    "language": texts.LANGUAGE_PROMPTS,
    "sentiment": [f"Write one sentence about {topic}." for topic in texts.SENTIMENT_TOPICS],
    "formality": texts.FORMALITY_PROMPTS,
}
SIDES = {
    "language": "English to French",
    "sentiment": "negative to positive",
    "formality": "informal to formal",
}
CONTRACTION = re.compile(r"\b\w+'(?:m|re|ve|ll|d|t)\b|\b(?:it|that|what|let|he|she|here|there|who)'s\b")


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def language(text: str) -> float:
    """Return the share of French words among those that are French or English."""
    words = words_of(text)
    french = sum(word in texts.FRENCH_WORDS or bool(texts.FRENCH_LETTERS & set(word)) for word in words)
    english = sum(word in texts.ENGLISH_WORDS for word in words)
    return french / (french + english) if french + english else 0.0


def sentiment(text: str) -> float:
    words = words_of(text)
    return log_odds(sum(w in texts.POSITIVE_WORDS for w in words), sum(w in texts.NEGATIVE_WORDS for w in words))


def formality(text: str) -> float:
    words, plain = words_of(text), text.lower().replace("’", "'")
    informal = sum(word in texts.INFORMAL_WORDS for word in words) + len(CONTRACTION.findall(plain)) + text.count("!")
    return log_odds(sum(word in texts.FORMAL_WORDS for word in words), informal)


def log_odds(for_it: int, against: int) -> float:
    return math.log((for_it + 0.5) / (against + 0.5))


SCORES = {"language": language, "sentiment": sentiment, "formality": formality}


def chat(user: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}]


def rows(pairs: list[tuple[str, str, str]], side: int) -> list[dict]:
    return [{"messages": [*chat(pair[0]), {"role": "assistant", "content": pair[side]}]} for pair in pairs]


@torch.no_grad()
def observe(model, tokenizer, prompts: list[str], strength: float) -> tuple[list[str], list[float], list[float]]:
    """Return the completions, the KL divergence from the unsteered model, and its NLL, at each generated token."""
    settings = generation_config(model, tokenizer, TOKENS)
    encoded = [tokenizer(render_prompt(chat(p), tokenizer, p), add_special_tokens=False)["input_ids"] for p in prompts]
    completions, kls, nlls = [], [], []
    for start in range(0, len(encoded), BATCH):
        batch = encoded[start : start + BATCH]
        inputs = pad_left(batch, settings.pad_token_id, model.device)
        set_steering(model, strength)
        output = model.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :].tolist()
        for prompt, ids in zip(batch, output, strict=True):
            end = next((at for at, token in enumerate(ids, 1) if token in settings.eos_token_id), len(ids))
            whole, logits = torch.tensor([prompt + ids[:end]]), {}
            for s in {strength, 0.0}:
                set_steering(model, s)
                logits[s] = model(whole, use_cache=False).logits[0, len(prompt) - 1 : -1]
            kls += kl_divergence(logits[strength], logits[0.0]).tolist()
            nlls += torch.nn.functional.cross_entropy(logits[0.0], whole[0, len(prompt) :], reduction="none").tolist()
            completions.append(tokenizer.decode(ids[:end], skip_special_tokens=True))
    return completions, kls, nlls


def set_steering(model, strength: float) -> None:
    if steering_layers(model):
        set_strength(model, strength)


@torch.no_grad()
def judged(model, tokenizer, completions: list[str]) -> list[float]:
    """Return log p(" positive") - log p(" negative") of the unsteered model after each text."""
    set_steering(model, 0.0)
    sides = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" positive", " negative")]
    odds = []
    for text in completions:
        ids = tokenizer(f'Text: "{text}"\nThe sentiment of this text is', return_tensors="pt")["input_ids"]
        logits = model(ids, use_cache=False).logits[0, -1]
        odds.append((logits[sides[0]] - logits[sides[1]]).item())
    return odds


def steer(base, tokenizer, property_: str, method: str):
    """Return the model with a vector of the property, or a random one as long, after the middle block; and its row."""
    direction, shift = METHODS[method]
    found = contrast(base, tokenizer, *(rows(PAIRS[property_], side) for side in (1, 2)), direction, token="mean")
    if method == "random":
        draw = torch.Generator().manual_seed(0)
        noise = [torch.randn(len(v), generator=draw) for v in found.vectors]
        vectors = tuple(n * v.norm() / n.norm() for n, v in zip(noise, found.vectors, strict=True))
        found = Contrast(vectors, found.report)
    return found.attach(base, shift=shift), found.report.layers[len(found.vectors) // 2]


def measure(base, tokenizer, property_: str, method: str) -> dict:
    """Return the record of one cell; method "base" is the unsteered model."""
    start, record = time.process_time(), {"property": property_, "method": method}
    if method == "base":
        model, strength = base, 0.0
    else:
        model, layer = steer(base, tokenizer, property_, method)
        prompts = [chat(prompt) for prompt in texts.CALIBRATION_PROMPTS]
        found = calibrate(model, prompts, TARGET, tokenizer, max_new_tokens=TOKENS, batch_size=BATCH)
        strength = found.found.strength
        record |= {"calibration": found.to_dict(), "relative_length": layer.relative, "separation": layer.separation}
    completions, kls, nlls = observe(model, tokenizer, PROMPTS[property_], strength)
    if property_ == "sentiment":
        record["judged"] = judged(model, tokenizer, completions)
    if method != "base":
        model.unload()
    return record | {
        "strength": strength,
        "scores": [SCORES[property_](text) for text in completions],
        "kl_p95": torch.tensor(kls).double().quantile(0.95).item(),
        "kl_mean": fmean(kls),
        "perplexity": math.exp(fmean(nlls)),
        "tokens": len(kls),
        "texts": completions,
        "cpu_seconds": time.process_time() - start,
    }


def effect(steered: list[float], base: list[float]) -> tuple[float, float, float]:
    """Return the mean difference over prompts, and its 95 % bootstrap interval."""
    differences, draw = [s - b for s, b in zip(steered, base, strict=True)], random.Random(0)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return fmean(differences), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def page(results: dict, reading: str) -> str:
    """Return the page: one table per property, and the reading that was written by hand."""
    cells = {(record["property"], record["method"]): record for record in results["records"]}
    lines = ["# Contrastive vectors on SmolLM2-135M-Instruct", ""]
    for run in results["runs"]:
        packages = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        lines.append(f"`{run['command']}`, {run['date']}, {run['machine']}; {packages}.")
    minutes = sum(record["cpu_seconds"] for record in results["records"]) / 60
    lines += [f"{minutes:.0f} CPU minutes in all. The protocol is in the script's docstring.", ""]
    for property_ in PAIRS:
        base = cells.get((property_, "base"))
        done = [cells[property_, method] for method in METHODS if (property_, method) in cells]
        if base and done:
            lines += [f"## {property_.capitalize()}: {SIDES[property_]}", "", *_table(base, done, "scores"), ""]
        if base and done and property_ == "sentiment":
            lines += ["The same texts, scored by the log-odds of the unsteered model:", ""]
            lines += [*_table(base, done, "judged"), ""]
    return "\n".join([*lines, reading])


def _table(base: dict, done: list[dict], score: str) -> list[str]:
    level = f"{fmean(base[score]):.2f} without steering"
    columns = ("effect (95 % interval)", "effect per nat", "KL p95", "KL mean", "perplexity")
    lines = [
        f"| method | strength | score ({level}) | {' | '.join(columns)} |",
        "|---" * 8 + "|",
    ]
    for record in done:
        mean, low, high = effect(record[score], base[score])
        interval, per_nat = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", mean / record["kl_p95"]
        figures = f"{fmean(record[score]):.2f} | {interval} | {per_nat:+.2f}"
        costs = f"{record['kl_p95']:.2f} | {record['kl_mean']:.3f} | {record['perplexity']:.2f}"
        lines.append(f"| {record['method']} | {record['strength']:.3g} | {figures} | {costs} |")
    return [*lines, f"| unsteered | 0 | {fmean(base[score]):.2f} | – | – | 0 | 0 | {base['perplexity']:.2f} |"]


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="folder or hub id")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records and the page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records, written = arguments.out / "vectors.json", arguments.out / "vectors.md"
    results = {"target_kl": TARGET, "runs": [], "records": []}
    results = json.loads(records.read_text()) if records.exists() else results
    run = {
        "command": "python scripts/real_vectors.py --model FOLDER",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("actshift", "torch", "transformers")},
    }
    done = {(record["property"], record["method"]) for record in results["records"]}
    cells = [(property_, method) for property_ in PAIRS for method in ("base", *METHODS)]
    missing = [cell for cell in cells if cell not in done]
    if missing:
        base, tokenizer = load_model(arguments.model, dtype="float32", device="cpu")
        results["runs"] += [run] if run not in results["runs"] else []
    for property_, method in missing:
        results["records"].append(rounded(measure(base, tokenizer, property_, method)))
        partial = records.with_suffix(".tmp")
        partial.write_text(json.dumps(results, ensure_ascii=False) + "\n")
        partial.replace(records)
        print(property_, method, f"{results['records'][-1]['cpu_seconds']:.0f} s", flush=True)
    old = written.read_text() if written.exists() else ""
    written.write_text(page(results, old[old.index("## Reading") :] if "## Reading" in old else "## Reading\n"))


if __name__ == "__main__":
    main()
