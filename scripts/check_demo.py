"""Check a report of ``actshift demo --json`` against the claims of the demo: ``python scripts/check_demo.py FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BASE_AT_MOST = 0.20  # the task must be new to the base model
ACCURACY_AT_LEAST = 0.90  # after 200 steps; 600 steps come within 1.5 points of full fine-tuning
GAP_TO_FULL_AT_MOST = 0.05
SHARE_AT_MOST = 0.015  # of the model's parameters


def failed_claims(report: dict) -> list[str]:
    """Return one line for each claim that the report does not support."""
    rows = {row["method"]: row for row in report["rows"]}
    base, steered, full = report["base_accuracy"], rows["post_block"], rows["full"]
    checks = {
        f"the base model already answers {base:.1%} correctly": base <= BASE_AT_MOST,
        f"post_block answers only {steered['accuracy']:.1%} correctly": steered["accuracy"] >= ACCURACY_AT_LEAST,
        f"full fine-tuning is too far ahead, {full['accuracy']:.1%} against {steered['accuracy']:.1%}": (
            full["accuracy"] - steered["accuracy"] <= GAP_TO_FULL_AT_MOST
        ),
        f"post_block trains {steered['trainable_share']:.2%} of the parameters": (
            steered["trainable_share"] <= SHARE_AT_MOST
        ),
        f"the reloaded adapter answers {report['reloaded_accuracy']:.1%} correctly": (
            report["reloaded_accuracy"] == steered["accuracy"]
        ),
    }
    return [claim for claim, passed in checks.items() if not passed]


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    if failed := failed_claims(report):
        sys.exit("demo: " + "; ".join(failed))
    print(f"demo: all claims hold, starting from {report['base_accuracy']:.1%}: {report['rows']}")


if __name__ == "__main__":
    main()
