"""Does `actshift locate` foresee what training finds? Writes docs/results/locate.{json,md}.

    python scripts/locate_results.py [--second MODEL --second-data ROWS]

1. Ranking: at each of 24 cells (site × layer × rank) of the bundled model one adapter is trained, and the first-order
   gain is set beside the loss and accuracy that it reaches.
2. Speed: steps to a target loss, of the uniform default and of what `to_config` and `gradient_init` make of the same
   number of parameters, over seeds.
3. With --second, the ranking again on another model, on rows of text.
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
"""What rank 8 after each of the bundled model's six blocks takes."""
PACKAGES = ("actshift", "torch", "transformers", "peft")


def target_count(batch: dict) -> int:
    return int((batch["labels"][:, 1:] != -100).sum())


@torch.no_grad()
def mean_loss(model, batches) -> float:
    model.eval()
    counts = [target_count(batch) for batch in batches]
    losses = [model(**batch).loss.item() for batch in batches]
    return sum(count * loss for count, loss in zip(counts, losses, strict=True)) / sum(counts)


def learn(model, batches, validation, steps: int, every: int | None = None, stop_at: float = 0.0) -> list:
    """Train by AdamW at one rate after a short warm-up; return (step, validation loss) now and then, and at the end."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0)
    curve = []
    for step, batch in enumerate(batches[:steps], start=1):
        model.train()
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / WARMUP)
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == steps or (every and step % every == 0):
            curve.append((step, mean_loss(model, validation)))
            if curve[-1][1] <= stop_at:
                break
    return curve


def ranking(load: Callable, train, validation, layers: Sequence[int], test=None) -> dict:
    """Train one adapter at each cell, and set what it reaches beside its gain."""
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
    """Ranks from 1, ties shared."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    return correlation(ranks_of(one), ranks_of(other))


def agreement(cells: list[dict], outcome: Callable[[dict], float], predictor: Callable[[dict], float]) -> dict:
    """Spearman's ρ with its 95 % interval over 2,000 bootstrap draws of the cells."""
    draw, found = random.Random(0), []
    for _ in range(2000):
        some = draw.choices(cells, k=len(cells))
        one, other = [predictor(cell) for cell in some], [outcome(cell) for cell in some]
        if len(set(one)) > 1 and len(set(other)) > 1:
            found.append(spearman(one, other))
    found.sort()
    rho = spearman([predictor(cell) for cell in cells], [outcome(cell) for cell in cells])
    return {"rho": rho, "low": found[int(0.025 * len(found))], "high": found[int(0.975 * len(found))], "n": len(cells)}


def arms(report) -> dict[str, SteeringConfig]:
    """The uniform default and its rivals of the same size, each with the default init and with the gradient's."""

    def even(init: str) -> SteeringConfig:
        return SteeringConfig(
            interventions=[
                Intervention(LowRank(rank, init=init), site=site) for site, rank in zip(SITES, (3, 3, 2), strict=True)
            ]
        )

    made = {}
    for init in ("default", "gradient"):
        made[f"uniform, {init} init"] = SteeringConfig(rank=8, init=init)
        made[f"even, {init} init"] = even(init)
        made[f"budget, {init} init"] = report.to_config(BUDGET, init=init)
    return made


def speed() -> dict:
    """Steps that each arm needs to each target, by seed."""
    found: dict[str, list] = {}
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
            found.setdefault(name, []).append({"seed": seed, "reached": reached, "curve": curve})
            print(seed, name, reached, flush=True)
    return found


def summary(results: dict) -> dict:
    """The figures of the page."""
    out: dict = {"rankings": {}, "speed": {}}
    for name, one in results["rankings"].items():
        cells = one["cells"]
        groups = {"all cells": cells}
        groups |= {f"rank {rank}": [c for c in cells if c["rank"] == rank] for rank in RANKS}
        groups |= {site: [c for c in cells if c["site"] == site] for site in SITES}
        out["rankings"][name] = {
            group: {
                "gain": agreement(some, lambda c: -c["loss"], lambda c: c["gain"]),
                "accuracy": agreement(some, lambda c: c["accuracy"], lambda c: c["gain"])
                if some[0]["accuracy"] is not None
                else None,
                "layer alone": agreement(some, lambda c: -c["loss"], lambda c: -c["layer"]),
            }
            for group, some in groups.items()
        }
    for name, runs in results["speed"].items():
        steps = {t: [run["reached"][str(t)] or MOST_STEPS + EVERY for run in runs] for t in TARGETS}
        out["speed"][name] = {str(t): {"median": median(some), "each": some} for t, some in steps.items()}
    return out


def page(results: dict) -> str:
    """The page, figures only: how to read them is in docs/results/README.md."""
    figures = summary(results)
    lines = [
        "# Does `locate` foresee what training finds?",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}, {results['seconds']:.0f} s; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"Every run: AdamW at {RATE:g} (the rate chosen for rank 8 after every block, not tuned for any other), "
        f"{WARMUP} steps of warm-up, {BATCH} rows a step, nonlinear adapters. Gains are from "
        f"{LOCATE_ROWS} training rows.",
    ]
    for name, groups in figures["rankings"].items():
        one = results["rankings"][name]
        lines += [
            "",
            f"## Ranking: {name}",
            "",
            f"One adapter at one site of one block, {one['steps']} steps, one seed; the untouched model's loss is "
            f"{one['loss_before']:.3f}. Spearman's ρ between first-order gain and what training reached (1: the "
            "ranking foresees it all, 0: nothing), with 95 % bootstrap intervals over cells; beside it ρ of the rule "
            '"the earlier the layer the better".',
            "",
            "| cells | n | gain, loss | gain, accuracy | earlier layer, loss |",
            "|---|---|---|---|---|",
        ]
        for group, some in groups.items():
            lines.append(
                f"| {group} | {some['gain']['n']} | {_rho(some['gain'])} | {_rho(some['accuracy'])} | "
                f"{_rho(some['layer alone'])} |"
            )
        lines += ["", "| site | layer | rank | gain | validation loss | accuracy |", "|---|---|---|---|---|---|"]
        for cell in sorted(one["cells"], key=lambda cell: -cell["gain"]):
            accuracy = "–" if cell["accuracy"] is None else f"{cell['accuracy']:.1%}"
            error = "" if cell["error"] is None else f" ± {cell['error']:.2g}"
            lines.append(
                f"| {cell['site']} | {cell['layer']} | {cell['rank']} | {cell['gain']:.3g}{error} | "
                f"{cell['loss']:.4f} | {accuracy} |"
            )
    lines += [
        "",
        "## Speed: the bundled model",
        "",
        f"{BUDGET:,} parameters each: `uniform` is rank 8 after every block, `even` ranks 3, 3, 2 at the three sites "
        "of every block, `budget` what `to_config` buys. Median (and each) of the steps to a validation loss over "
        f"{SEEDS} seeds (rows, first weights, and the gains, from the first {LOCATE_ROWS} of those rows), looked at "
        f"every {EVERY} steps; {MOST_STEPS + EVERY} is not reached in {MOST_STEPS}.",
        "",
        "| | " + " | ".join(f"to {target} nats" for target in TARGETS) + " |",
        "|---|" + "---|" * len(TARGETS),
    ]
    for name, some in figures["speed"].items():
        cells = [f"**{some[str(t)]['median']:g}** ({', '.join(map(str, some[str(t)]['each']))})" for t in TARGETS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rho(one: dict | None) -> str:
    return "–" if one is None else f"{one['rho']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


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
    held = VALIDATION_ROWS // BATCH
    return ranking(load, batches[held : held + CELL_STEPS], batches[:held], [0, 2, 4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--second", help="another model's folder")
    parser.add_argument("--second-data", help="rows of text for it")
    parser.add_argument("--rewrite", action="store_true", help="write the page anew from the locate.json that is there")
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
