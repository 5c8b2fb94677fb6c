"""Test if `actshift locate` predicts the result of training, and write docs/results/locate.{json,md}.

    python scripts/locate_results.py [--second MODEL --second-data ROWS]

1. Ranking: train one adapter at each of 24 cells (site × layer × rank) of the bundled model, and compare its
   first-order gain with the loss and accuracy that it reaches.
2. Speed: count the steps to a target loss over seeds, for the uniform default and for `to_config` and `gradient_init`
   with the same number of parameters.
3. With --second, repeat the ranking on another model with rows of text.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import correlation, median

import torch

from actshift import Intervention, LowRank, SteeringConfig, attach, gradient_init, locate, token_batches
from actshift.data import load_rows
from actshift.demo import load_base
from actshift.demo.task import make_rows
from actshift.evaluation import evaluate
from actshift.loading import load_model

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SITES = ("post_block", "post_mlp", "post_attention")
RANKS = (1, 8)
BATCH, RATE, WARMUP = 16, 1e-2, 10
CELL_STEPS, MOST_STEPS, EVERY = 100, 150, 5
TARGETS = (0.5, 0.1)
LOCATE_ROWS, VALIDATION_ROWS, TEST_ROWS = 256, 128, 200
SEEDS = 5
BUDGET = 12_288
"""Parameters of rank 8 after each of the six blocks of the bundled model."""
PACKAGES = ("actshift", "torch", "transformers", "peft")


def target_count(batch: dict) -> int:
    return int((batch["labels"][:, 1:] != -100).sum())


@torch.no_grad()
def mean_loss(model, batches) -> float:
    model.eval()
    counts = [target_count(batch) for batch in batches]
    losses = [model(**batch).loss.item() for batch in batches]
    return sum(count * loss for count, loss in zip(counts, losses, strict=True)) / sum(counts)


def learn(
    model,
    batches,
    validation,
    steps: int,
    every: int | None = None,
    stop_at: float = 0.0,
    rate: float = RATE,
    warmup: int = WARMUP,
) -> list:
    """Train with AdamW at a constant rate after a short warm-up.

    Returns:
        Pairs of step and validation loss, every `every` steps and at the end.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0)
    curve = []
    for step, batch in enumerate(batches[:steps], start=1):
        model.train()
        optimizer.param_groups[0]["lr"] = rate * min(1, step / warmup)
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == steps or (every and step % every == 0):
            curve.append((step, mean_loss(model, validation)))
            if curve[-1][1] <= stop_at:
                break
    return curve


def ranking(load: Callable, train, validation, layers: Sequence[int], test=None) -> dict:
    """Train one adapter at each cell, and return its gain with the loss and accuracy that it reaches."""
    model, tokenizer = load()
    report = locate(model, train[: LOCATE_ROWS // BATCH], layers=layers, rank=max(RANKS), weights=False)
    before, cells = mean_loss(model, validation), []
    for place in report.places:
        for rank in RANKS:
            torch.manual_seed(0)
            config = SteeringConfig(adapter=LowRank(rank), site=place.site, layers=[place.layer])
            adapted = attach(load()[0], config)
            [(_, loss)] = learn(adapted, train, validation, CELL_STEPS)
            accuracy = evaluate(adapted, tokenizer, test, 12, batch_size=TEST_ROWS).accuracy if test else None
            gain = place.gain(rank)
            cell = dict(site=place.site, layer=place.layer, rank=rank, gain=gain.value, error=gain.error, loss=loss)
            cells.append({**cell, "accuracy": accuracy})
            print(cells[-1], flush=True)
    return {"loss_before": before, "steps": CELL_STEPS, "cells": cells}


def ranks_of(values: Sequence[float]) -> list[float]:
    """Return the ranks of values from 1; equal values share their mean rank."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    return correlation(ranks_of(x), ranks_of(y))


def agreement(cells: list[dict], outcome: Callable[[dict], float], predictor: Callable[[dict], float]) -> dict:
    """Return Spearman's ρ with its 95 % interval over 2,000 bootstrap draws of the cells."""
    rng, samples = random.Random(0), []
    for _ in range(2000):
        drawn = rng.choices(cells, k=len(cells))
        predicted, reached = [predictor(cell) for cell in drawn], [outcome(cell) for cell in drawn]
        if len(set(predicted)) > 1 and len(set(reached)) > 1:
            samples.append(spearman(predicted, reached))
    samples.sort()
    rho = spearman([predictor(cell) for cell in cells], [outcome(cell) for cell in cells])
    low, high = (samples[int(share * len(samples))] for share in (0.025, 0.975))
    return {"rho": rho, "low": low, "high": high, "n": len(cells)}


def arms(report) -> dict[str, SteeringConfig]:
    """Return the configurations of equal size, each with the default and with the gradient initialisation."""

    def even(init: str) -> SteeringConfig:
        return SteeringConfig(
            interventions=[
                Intervention(LowRank(rank, init=init), site=site) for site, rank in zip(SITES, (3, 3, 2), strict=True)
            ]
        )

    configs = {}
    for init in ("default", "gradient"):
        configs[f"uniform, {init} init"] = SteeringConfig(rank=8, init=init)
        configs[f"even, {init} init"] = even(init)
        configs[f"budget, {init} init"] = report.to_config(BUDGET, init=init)
    return configs


def speed() -> dict:
    """Return the number of steps that each configuration needs to each target, by seed."""
    runs: dict[str, list] = {}
    tokenizer = load_base()[1]
    validation = token_batches(make_rows("validation", VALIDATION_ROWS), tokenizer, VALIDATION_ROWS)
    for seed in range(SEEDS):
        train = token_batches(make_rows("train", MOST_STEPS * BATCH, seed + 1), tokenizer, BATCH)
        probe = train[: LOCATE_ROWS // BATCH]
        report = locate(load_base()[0], probe, rank=16, weights=False)
        for name, config in arms(report).items():
            torch.manual_seed(seed)
            model = attach(load_base()[0], config)
            assert sum(p.numel() for p in model.parameters() if p.requires_grad) == BUDGET
            if "gradient" in name:
                gradient_init(model, probe)
            curve = learn(model, train, validation, MOST_STEPS, EVERY, min(TARGETS))
            reached = {str(t): next((step for step, loss in curve if loss <= t), None) for t in TARGETS}
            runs.setdefault(name, []).append({"seed": seed, "reached": reached, "curve": curve})
            print(seed, name, reached, flush=True)
    return runs


def summary(results: dict) -> dict:
    """Return the statistics of the page."""
    out: dict = {"rankings": {}, "speed": {}}
    for name, ranked in results["rankings"].items():
        cells = ranked["cells"]
        groups = {"all cells": cells}
        groups |= {f"rank {rank}": [c for c in cells if c["rank"] == rank] for rank in RANKS}
        groups |= {site: [c for c in cells if c["site"] == site] for site in SITES}
        out["rankings"][name] = {
            group: {
                "gain": agreement(members, lambda c: -c["loss"], lambda c: c["gain"]),
                "accuracy": agreement(members, lambda c: c["accuracy"], lambda c: c["gain"])
                if members[0]["accuracy"] is not None
                else None,
                "layer alone": agreement(members, lambda c: -c["loss"], lambda c: -c["layer"]),
            }
            for group, members in groups.items()
        }
    for name, runs in results["speed"].items():
        steps = {t: [run["reached"][str(t)] or MOST_STEPS + EVERY for run in runs] for t in TARGETS}
        out["speed"][name] = {str(t): {"median": median(each), "each": each} for t, each in steps.items()}
    return out


def page(results: dict) -> str:
    """Return the page, without the discussion, which is in docs/results/README.md."""
    figures = summary(results)
    lines = [
        "# Does `locate` predict the result of training?",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}, {results['seconds']:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"Every run uses AdamW with learning rate {RATE:g}, {WARMUP} warm-up steps, {BATCH} rows per step and "
        "nonlinear adapters. The rate was tuned for rank 8 after every block and for no other configuration. Gains are "
        f"measured on {LOCATE_ROWS} training rows.",
    ]
    for name, groups in figures["rankings"].items():
        lines += _ranking_section(name, groups, results["rankings"][name])
    return "\n".join([*lines, *_speed_section(figures["speed"])]) + "\n"


def _ranking_section(name: str, groups: dict, ranked: dict) -> list[str]:
    lines = [
        "",
        f"## Ranking: {name}",
        "",
        f"Each cell is one adapter at one site of one block, trained for {ranked['steps']} steps with one seed. "
        f"The loss of the untouched model is {ranked['loss_before']:.3f}. The table shows Spearman's ρ between the "
        "first-order gain and the result of training (1: the ranking predicts it perfectly, 0: not at all), with "
        "95 % bootstrap intervals over cells. The last column is ρ of the rule "
        '"the earlier the layer, the better".',
        "",
        "| cells | n | gain, loss | gain, accuracy | earlier layer, loss |",
        "|---|---|---|---|---|",
    ]
    for group, rho in groups.items():
        lines.append(
            f"| {group} | {rho['gain']['n']} | {_rho(rho['gain'])} | {_rho(rho['accuracy'])} | "
            f"{_rho(rho['layer alone'])} |"
        )
    lines += ["", "| site | layer | rank | gain | validation loss | accuracy |", "|---|---|---|---|---|---|"]
    for cell in sorted(ranked["cells"], key=lambda cell: -cell["gain"]):
        accuracy = "–" if cell["accuracy"] is None else f"{cell['accuracy']:.1%}"
        error = "" if cell["error"] is None else f" ± {cell['error']:.2g}"
        lines.append(
            f"| {cell['site']} | {cell['layer']} | {cell['rank']} | {cell['gain']:.3g}{error} | "
            f"{cell['loss']:.4f} | {accuracy} |"
        )
    return lines


def _speed_section(speeds: dict) -> list[str]:
    lines = [
        "",
        "## Speed: the bundled model",
        "",
        f"All configurations have {BUDGET:,} parameters: `uniform` is rank 8 after every block, `even` is ranks 3, 3, "
        "2 at the three sites of every block, `budget` is the choice of `to_config`. The table shows the median (and "
        f"each value) of the steps to a validation loss over {SEEDS} seeds. Seeds change the rows, the initial weights "
        f"and the gains, which are measured on the first {LOCATE_ROWS} rows. The loss is evaluated every {EVERY} "
        f"steps; {MOST_STEPS + EVERY} means not reached in {MOST_STEPS} steps.",
        "",
        "| | " + " | ".join(f"to {target} nats" for target in TARGETS) + " |",
        "|---|" + "---|" * len(TARGETS),
    ]
    for name, targets in speeds.items():
        cells = [f"**{targets[str(t)]['median']:g}** ({', '.join(map(str, targets[str(t)]['each']))})" for t in TARGETS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _rho(statistic: dict | None) -> str:
    if statistic is None:
        return "–"
    return f"{statistic['rho']:.2f} ({statistic['low']:.2f} to {statistic['high']:.2f})"


def bundled() -> dict:
    tokenizer = load_base()[1]
    train = token_batches(make_rows("train", CELL_STEPS * BATCH, 0), tokenizer, BATCH)
    validation = token_batches(make_rows("validation", VALIDATION_ROWS), tokenizer, VALIDATION_ROWS)
    return ranking(load_base, train, validation, [0, 2, 3, 5], make_rows("test", TEST_ROWS))


def second(model: str, data: str) -> dict:
    def load():
        return load_model(model, dtype="float32")

    tokenizer = load()[1]
    rows = [row["text"] for row in load_rows(data, limit=200)]
    batches = token_batches(rows, tokenizer, BATCH, max_length=48)
    held_out = VALIDATION_ROWS // BATCH
    return ranking(load, batches[held_out : held_out + CELL_STEPS], batches[:held_out], [0, 2, 4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--second", help="folder of another model")
    parser.add_argument("--second-data", help="rows of text for the second model")
    parser.add_argument("--rewrite", action="store_true", help="write the page again from the existing locate.json")
    arguments = parser.parse_args()
    stored = RESULTS / "locate.json"
    if arguments.rewrite:
        results = json.loads(stored.read_text(encoding="utf-8"))
    else:
        torch.set_num_threads(1)
        start = time.perf_counter()
        rankings = {"the bundled model, its demo task": bundled()}
        speeds = speed()
        if arguments.second:
            rankings[f"{Path(arguments.second).name}, {Path(arguments.second_data).stem}"] = second(
                arguments.second, arguments.second_data
            )
        results = {
            "command": "python scripts/locate_results.py"
            + (f" --second {arguments.second} --second-data {arguments.second_data}" if arguments.second else ""),
            "date": date.today().isoformat(),
            "versions": {name: version(name) for name in PACKAGES},
            "machine": f"{platform.machine()}, one thread, no GPU",
            "seconds": time.perf_counter() - start,
            "rankings": rankings,
            "speed": speeds,
        }
        results["summary"] = summary(results)
        stored.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "locate.md").write_text(page(results), encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
