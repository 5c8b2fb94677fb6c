"""Run the demo over seeds and write docs/results/demo.{json,md,png}: ``python scripts/demo_results.py --seeds 3``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev

from actshift.compare.provenance import provenance
from actshift.demo import METHODS
from actshift.demo.run import STEPS, run_demo

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def measure(seeds: int, steps: int) -> dict:
    """Return the reports of all seeds with their provenance."""
    reports = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            reports.append(run_demo(list(METHODS), Path(folder, "demo"), seed, steps, say=print).to_dict())
    return {
        **provenance(f"python scripts/demo_results.py --seeds {seeds} --steps {steps}"),
        "reports": reports,
    }


def summarise(results: dict) -> list[dict]:
    """Return the mean and standard deviation over seeds of each method."""
    lines = []
    for rows in zip(*(report["rows"] for report in results["reports"]), strict=True):
        accuracies = [row["accuracy"] for row in rows]
        lines.append(
            {
                **{name: rows[0][name] for name in ("label", "trainable", "trainable_share", "size")},
                "accuracies": accuracies,
                "mean": mean(accuracies),
                "spread": stdev(accuracies) if len(accuracies) > 1 else 0.0,
                "seconds": mean(row["seconds"] for row in rows),
            }
        )
    return lines


def write_table(results: dict, lines: list[dict]) -> None:
    """Write the table with its provenance."""
    first = results["reports"][0]
    table = [
        "# The demo, over seeds",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
        f"Exact match of greedy completions on {first['test_rows']:,} questions that no training set contains. Each "
        f"method trains for {first['steps']} steps of 32 rows on one thread. The untouched base model answers "
        f"{first['base_accuracy']:.1%} correctly. Spread is the standard deviation over "
        f"{len(results['reports'])} seeds, which change the rows, their order and the initial weights.",
        "",
        "| method | trainable | share | accuracy | spread | each seed | training | size |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        seeds = ", ".join(f"{accuracy:.1%}" for accuracy in line["accuracies"])
        table.append(
            f"| {line['label']} | {line['trainable']:,} | {line['trainable_share']:.2%} | **{line['mean']:.1%}** | "
            f"{line['spread']:.1%} | {seeds} | {line['seconds']:.0f} s | {line['size'] / 1e3:,.0f} kB |"
        )
    (RESULTS / "demo.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def draw(results: dict, lines: list[dict]) -> None:
    """Draw one bar for each method: accuracy with its spread, and trained parameters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    base = results["reports"][0]["base_accuracy"]
    bars = [
        *((f"{line['label']}\n{line['trainable']:,} trained", line["mean"], line["spread"]) for line in lines),
        ("untouched base", base, 0.0),
    ]
    figure, axes = plt.subplots(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    for y, (label, accuracy, spread) in enumerate(reversed(bars)):
        colour = "#c2410c" if label.startswith("post-block r") else "#94a3b8"
        axes.barh(y, 100 * accuracy, xerr=100 * spread or None, color=colour, height=0.62, capsize=3)
        axes.annotate(f"{accuracy:.1%}", (100 * accuracy + 1.5, y), va="center", fontsize=9, fontweight="bold")
    axes.set_yticks(range(len(bars)), [label for label, _, _ in reversed(bars)], fontsize=8.5)
    axes.set(xlim=(0, 110), xlabel="exact match on 2,000 unseen questions, %")
    axes.set_title(f"A form of answer never seen before, {len(results['reports'])} seeds", loc="left", fontsize=11)
    axes.set_xticks(range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "demo.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--redraw", action="store_true", help="use the existing demo.json")
    arguments = parser.parse_args()
    stored = RESULTS / "demo.json"
    if arguments.redraw:
        results = json.loads(stored.read_text(encoding="utf-8"))
    else:
        results = measure(arguments.seeds, arguments.steps)
        stored.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = summarise(results)
    write_table(results, lines)
    draw(results, lines)
    print((RESULTS / "demo.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
