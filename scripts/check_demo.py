"""Check that a run of ``actshift demo --json`` shows what the demo claims; takes the JSON file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BASE_AT_MOST = 0.20  # the task must be new to the base model
ACCURACY_AT_LEAST = 0.90  # what a run of 200 steps must reach; 600 come within 1.5 points of full fine-tuning
BEHIND_FULL_AT_MOST = 0.05
SHARE_AT_MOST = 0.015  # of the model's parameters


def problems(report: dict) -> list[str]:
    """Each claim that the report does not bear out, as one line."""
    rows = {row["method"]: row for row in report["rows"]}
    base, steered, full = report["base_accuracy"], rows["post_block"], rows["full"]
    checks = {
        f"the base model is {base:.1%} right": base <= BASE_AT_MOST,
        f"post_block is only {steered['accuracy']:.1%} right": steered["accuracy"] >= ACCURACY_AT_LEAST,
        f"full fine-tuning is far ahead, {full['accuracy']:.1%} to {steered['accuracy']:.1%}": (
            full["accuracy"] - steered["accuracy"] <= BEHIND_FULL_AT_MOST
        ),
        f"post_block trains {steered['trainable_share']:.2%} of the parameters": (
            steered["trainable_share"] <= SHARE_AT_MOST
        ),
        f"reloaded, the adapter is {report['reloaded_accuracy']:.1%} right": (
            report["reloaded_accuracy"] == steered["accuracy"]
        ),
    }
    return [claim for claim, held in checks.items() if not held]


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    found = problems(report)
    if found:
        sys.exit("demo: " + "; ".join(found))
    print(f"demo: as claimed, from {report['base_accuracy']:.1%}: {report['rows']}")


if __name__ == "__main__":
    main()
