"""Check that a run of ``actshift demo --json`` shows what the demo claims; takes the JSON file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BASE_AT_MOST = 0.20  # the task must be new to the base model
GAIN_AT_LEAST = 0.40  # what a shortened run must already have learnt
SHARE_AT_MOST = 0.015  # of the model's parameters


def problems(report: dict) -> list[str]:
    """Each claim that the report does not bear out, as one line."""
    base = report["base_accuracy"]
    steered = next((row for row in report["rows"] if row["method"] == "post_block"), None)
    if steered is None:
        return ["the report has no row for post_block"]
    gain, share = steered["accuracy"] - base, steered["trainable_share"]
    found = []
    if base > BASE_AT_MOST:
        found.append(f"the base model is {base:.1%} right, above {BASE_AT_MOST:.0%}")
    if gain < GAIN_AT_LEAST:
        found.append(f"post_block gained {gain:.1%}, below {GAIN_AT_LEAST:.0%}")
    if share > SHARE_AT_MOST:
        found.append(f"post_block trains {share:.2%} of the parameters, above {SHARE_AT_MOST:.1%}")
    return found


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    found = problems(report)
    if found:
        sys.exit("demo: " + "; ".join(found))
    print(f"demo: as claimed, from {report['base_accuracy']:.1%}: {report['rows']}")


if __name__ == "__main__":
    main()
