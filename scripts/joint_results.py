"""Compare joint adaptation with its two halves: ``python scripts/joint_results.py --out DIR --seeds 3``.

The task is in belongings.py, and the methods are in joint_methods.yaml. DIR keeps the comparison, and the same command
resumes it. The script writes joint.{json,md,png} to docs/results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from belongings import make_rows

from actshift.analysis import redundancy
from actshift.compare.cell import Cell
from actshift.compare.compare import compare
from actshift.compare.page import draw, markdown
from actshift.compare.report import CompareReport, ReportRow
from actshift.compare.settings import CompareSettings
from actshift.demo import BASE_DIR, load_base
from actshift.demo.run import MAX_NEW_TOKENS, one_thread
from actshift.evaluation import evaluate
from actshift.tuner import halves, load_adapter, orthogonality_violations

SCRIPTS = Path(__file__).parent
RESULTS = SCRIPTS.parent / "docs" / "results"
BATCH = 250


def settings_for(out: Path, seeds: int) -> CompareSettings:
    """Write the rows of the task to `out`, and return the settings of the comparison on them."""
    paths = {split: out / "task" / f"{split}.jsonl" for split in ("train", "validation", "test")}
    for split, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(split)), encoding="utf-8")
    return CompareSettings(
        model=str(BASE_DIR),
        data=str(paths["train"]),
        eval_data=str(paths["validation"]),
        test_data=str(paths["test"]),
        methods=(str(SCRIPTS / "joint_methods.yaml"),),
        seeds=seeds,
        out=str(out / "table"),
        max_new_tokens=MAX_NEW_TOKENS,
        eval_batch_size=BATCH,
    )


def joint_cells(report: CompareReport, out: Path) -> Iterator[tuple[ReportRow, int, Path]]:
    """Yield each joint method and seed with the folder of its adapter."""
    for row in report.rows:
        for seed in range(len(row.test)) if row.lora_rate else ():
            yield row, seed, Cell(row.method, row.rate, seed).folder(out / "table") / "weights"


def measure_halves(folder: Path) -> dict[str, Any]:
    """Return the overlap of the two halves of a joint adapter, and the test accuracy of each half alone."""
    model, tokenizer = load_base()
    model = load_adapter(model, str(folder)).eval()
    texts = [row["prompt"] + row["completion"] for row in make_rows("validation")[::4]]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    measured: dict[str, Any] = {
        "violation": max(orthogonality_violations(model).values()),
        "redundancy": redundancy(model, [inputs]).to_dict(),
    }
    for half in ("weights", "activations"):
        with halves(model, half):
            measured[half] = evaluate(model, tokenizer, make_rows("test"), MAX_NEW_TOKENS, BATCH).accuracy
    return measured


def inside_table(report: CompareReport, inside: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the section about the two halves of each joint method."""
    lines = [
        "",
        "## Inside the joint runs",
        "",
        "Means over seeds and blocks, on validation rows. Violation is the largest share of a row of W_down that lies "
        "in col(B), over all blocks and seeds. The overlaps are mean squared cosines of principal angles: the read "
        "overlap between the row space of W_down and the column space of LoRA-B, the shift overlap between the leading "
        "directions of the shifts that each half makes alone. In brackets is the value for two random subspaces. Token "
        "cosine is the cosine between these shifts, averaged over tokens. The last two columns are test accuracies "
        "with the other half switched off.",
        "",
        "| method | violation | read overlap (chance) | shift overlap (chance) | token cosine | weights alone | "
        "activations alone |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report.rows:
        if not (cells := inside.get(row.method)):
            continue
        figure = {name: mean(cell["redundancy"][name] for cell in cells) for name in ("read", "shift", "cosine")}
        chance = {
            name: mean(block[name]["chance"] for cell in cells for block in cell["redundancy"]["blocks"])
            for name in ("read", "shift")
        }
        lines.append(
            f"| {row.label} | {max(cell['violation'] for cell in cells):.1e} | "
            + "".join(f"{figure[name]:.3f} ({chance[name]:.3f}) | " for name in ("read", "shift"))
            + f"{figure['cosine']:.3f} | "
            + " | ".join(f"{mean(cell[half] for cell in cells):.1%}" for half in ("weights", "activations"))
            + " |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    report = compare(
        settings_for(arguments.out, arguments.seeds),
        lambda progress: print(progress.news, flush=True) if progress.news else None,
    )
    inside: dict[str, list[dict[str, Any]]] = {}
    with one_thread():
        for row, seed, folder in joint_cells(report, arguments.out):
            print(f"{row.method}, seed {seed}: measuring the halves", flush=True)
            inside.setdefault(row.method, []).append(measure_halves(folder))
    report = replace(
        report,
        protocol={**report.protocol, "model": "the bundled model"},
        made={**report.made, "command": f"python scripts/joint_results.py --out DIR --seeds {arguments.seeds}"},
    )
    results = {**report.to_dict(), "inside": inside}
    (RESULTS / "joint.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = markdown(report).replace("table.png", "joint.png") + "\n".join(inside_table(report, inside)) + "\n"
    (RESULTS / "joint.md").write_text(text, encoding="utf-8")
    draw(report, RESULTS / "joint.png")
    print(text)


if __name__ == "__main__":
    main()
