"""The page of real_steps.py: the choices between its rounds, the tables, and docs/results/steps.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from actshift.compare.provenance import provenance

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECORDS, PAGE = RESULTS / "steps", RESULTS / "steps.md"
PILOT, STEPS, SHORT, FIRST_ROUND = 100, 60, 48, 20
"""Seed of the screening; steps of a run, of a run that must do with 0.8 of them, and of the first round."""
PROMOTED, CONFIRMED, SEEDS = 4, 2, 5  # remedies in the second and third round, and seeds in the third
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 97.5 % quantile of t for this number of seeds
Record = dict[str, Any]
Choice = tuple[str, float]

PROTOCOL = """\
## Protocol

Written and committed before the first run.

* **Task.** SmolLM2-135M-Instruct, ListOps expressions of 4 to 12 tokens written without spaces. A run has 60 steps of
  16 rows, which are drawn from 2,000 training rows without replacement. Batches have rows of similar length. The seed
  draws the rows, their order and the initial weights. All blocks are adapted, in float32 on one thread.
* **Default.** Post-block r=8 with SiLU, AdamW without weight decay, gradients clipped to norm 1, a linear schedule with
  3 % warm-up. LoRA has r=8, α=16 and all linear maps.
* **Loss.** Mean over predicted tokens (the answer and the end of the text) on validation rows: the first 100 rows
  during a run, and all 300 at its end.
* **Round 1.** Every remedy at two rates with seed 100, stopped after 20 of 60 steps.
* **Round 2.** The four remedies with the lowest loss, each at its better rate, continue to step 60. So do the default
  at every rate, and LoRA at its better rate.
* **Round 3.** Seeds 0 to 4. The default and LoRA, each at the rate with the lowest loss of round 2, run for 60 steps.
  The two remedies with the lowest loss of round 2 run for 48 steps, with a schedule of 48 steps.
* **Decision.** A remedy takes at most 0.8 of the steps if its mean loss after 48 steps is not above the default's after
  60 steps on the same seeds. It is adopted if the upper end of the 95 % interval of this difference (paired by seed,
  Student's t) is at most 0.

Changed during round 1, because cells take longer than planned: the default at 1e-2 and a smaller initial W_down are
left out. Remedies that do not move the best rate much (warm-ups, beta2, clipping) have one rate. The rates for W_up and
W_down apart were added with the same geometric mean as the default's, after "W_up x4" and "W_up x16" had only raised a
rate that was high enough. Muon got a third, lower rate, because its loss rose with the rate.
LoRA skips round 2, since only one of its rates would take part. Round 3 starts with the default and the best remedy,
and evaluates at the end of a run only (the first cell has a curve).
"""


def read_records() -> list[Record]:
    """Return all records."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("*.json"))]


def _pilots(length: int) -> list[Record]:
    return [record for record in read_records() if record["seed"] == PILOT and len(record["train"]) >= length]


def _best(records: Sequence[Record], key: str) -> dict[str, Record]:
    """Return each remedy's record with the lowest validation loss at step `key`, in the order of these losses."""
    best: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: _at(record, key)):
        best.setdefault(record["remedy"], record)
    return best


def _at(record: Record, key: str) -> float:
    loss = record.get("final") if key == "final" else record["validation"].get(key)
    return math.inf if loss is None or math.isnan(loss) else loss


def promoted() -> list[Choice]:
    """Return the cells of the second round: the default at every rate, and the best remedies."""
    records = _pilots(FIRST_ROUND)
    best = _best(records, str(FIRST_ROUND))
    del best["default"], best["LoRA"]
    defaults = [record for record in records if record["remedy"] == "default"]
    return [(each["remedy"], each["rate"]) for each in (*defaults, *list(best.values())[:PROMOTED])]


def screened() -> list[Choice]:
    """Return the default, LoRA and the best remedies for the third round, each with its rate."""
    best = _best(_pilots(STEPS), "final")
    default, lora = best.pop("default"), _best(_pilots(FIRST_ROUND), str(FIRST_ROUND))["LoRA"]
    return [(each["remedy"], each["rate"]) for each in (default, lora, *list(best.values())[:CONFIRMED])]


def crossing(record: Record, target: float) -> float | None:
    """Return the step at which the validation curve reaches a loss, between two evaluations on a straight line."""
    curve = sorted((int(step), loss) for step, loss in record["validation"].items())
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * max(0.0, high - target) / (high - low) if high > low else after
    return None


def interval(values: Sequence[float]) -> str:
    """Return the mean with its 95 % interval (Student's t)."""
    if len(values) < 2:
        return f"{fmean(values):.3f}"
    half = STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))
    return f"{fmean(values):.3f} ({fmean(values) - half:.3f} to {fmean(values) + half:.3f})"


def write_page() -> None:
    """Write the page; text below the heading "Decision" stays as it is."""
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    reading = old.partition("## Decision\n")[2].partition("\n## ")[0]
    made = provenance("python scripts/real_steps.py --out DIR")
    versions = ", ".join(f"{name} {made['versions'][name]}" for name in ("torch", "transformers", "peft"))
    how = f"`{made['command']}`, {made['date']}, {made['machine']}, one thread; {versions}."
    sections = [
        f"# Fewer steps to the same loss\n\n{how}\n",
        f"## Decision\n{reading.rstrip()}\n",
        confirmation_table(),
        screening_table(),
        PROTOCOL,
    ]
    PAGE.write_text("\n".join(section for section in sections if section), encoding="utf-8")


def screening_table() -> str:
    """Return the table of the first two rounds."""
    records = _pilots(FIRST_ROUND)
    if not records:
        return ""
    finals = [each for each in records if each["remedy"] == "default" and "final" in each]
    target = min((each["validation"][str(STEPS)] for each in finals), default=-math.inf)
    lines = [
        "## Rounds 1 and 2: one seed",
        "",
        "The rate is the default's; scripts/real_steps.py says how a remedy multiplies it. Training loss: the mean "
        "over steps 11 to 20, each on new rows, the same ones for every method. Share of the steps: the step at which "
        f"the loss on 100 rows reaches the default's lowest one after {STEPS} steps, divided by {STEPS}. Cells without "
        "a loss after 60 steps were not promoted.",
        "",
        f"| remedy | rate | training loss | loss, step {FIRST_ROUND} | loss, step {STEPS} | the same, 300 rows "
        "| share of the steps |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for record in sorted(records, key=lambda each: (_at(each, "final"), _at(each, str(FIRST_ROUND)))):
        losses = [fmean(record["train"][FIRST_ROUND // 2 : FIRST_ROUND])]
        losses += [
            record["validation"].get(str(FIRST_ROUND)),
            record["validation"].get(str(STEPS)),
            record.get("final"),
        ]
        share = _share(record, target) if "final" in record else "–"
        lines.append(f"| {record['remedy']} | {record['rate']:g} | {' | '.join(map(_number, losses))} | {share} |")
    return "\n".join(lines) + "\n"


def _number(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


def _share(record: Record, target: float) -> str:
    reached = crossing(record, target)
    return f"{reached / STEPS:.2f}" if reached else "not reached"


def confirmation_table() -> str:
    """Return the table of the third round, with the decision about each remedy."""
    records = [record for record in read_records() if record["seed"] != PILOT and "final" in record]
    base = {each["seed"]: each for each in records if each["remedy"] == "default" and each["steps"] == STEPS}
    if not base:
        return ""
    lines = [
        "## Round 3: new seeds",
        "",
        "Losses on 300 rows at the end of a run, with 95 % intervals over seeds. The difference is paired by seed; "
        "below 0 is better than the default's 60 steps.",
        "",
        "| method | rate | steps | seeds | final loss | minus the default's | decision |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for key in dict.fromkeys((each["remedy"], each["rate"], each["steps"]) for each in records):
        runs = [each for each in records if (each["remedy"], each["rate"], each["steps"]) == key]
        runs = [each for each in runs if each["seed"] in base]
        pairs = [each["final"] - base[each["seed"]]["final"] for each in runs]
        is_base = key[0] == "default" and key[2] == STEPS
        difference = "–" if is_base or not runs else interval(pairs)
        verdict = decide(pairs) if key[2] == SHORT else "–"
        final = interval([each["final"] for each in runs]) if runs else "–"
        lines.append(f"| {key[0]} | {key[1]:g} | {key[2]} | {len(runs)} | {final} | {difference} | {verdict} |")
    return "\n".join(lines) + "\n"


def decide(differences: Sequence[float]) -> str:
    """Return the decision of the protocol about a remedy.

    >>> decide([-0.02, -0.03, -0.01, -0.02, -0.02]), decide([0.1] * 5), decide([-0.1])
    ('adopt', 'no', 'open')
    """
    if len(differences) < SEEDS:
        return "open"
    if fmean(differences) > 0:
        return "no"
    upper = fmean(differences) + STUDENT[SEEDS] * stdev(differences) / math.sqrt(SEEDS)
    return "adopt" if upper <= 0 else "no, 0.8 within chance"
