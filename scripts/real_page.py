"""Write the tables of docs/results/real.md from the records in docs/results/real: ``python scripts/real_page.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import yaml
from real_bootstrap import Interval, accuracy_interval, difference_interval
from real_study import METHODS, RECORDS, read_records

from actshift.compare.report import short_rate

PAGE = RECORDS.parent / "real.md"
MARK = "<!-- scripts/real_page.py writes everything below this line -->"
ENTRIES: dict[str, Any] = yaml.safe_load(METHODS.read_text(encoding="utf-8"))["methods"]
TABLES = {
    ("smollm2", "listops"): "SmolLM2, ListOps",
    ("smollm2", "mawps"): "SmolLM2, MAWPS (512 training rows)",
    ("smollm2", "authors"): "SmolLM2, authors",
    ("smollm2", "mawps-128"): "SmolLM2, MAWPS with 128 training rows",
    ("smollm2", "mawps-32"): "SmolLM2, MAWPS with 32 training rows",
    ("gemma3", "listops"): "Gemma-3, ListOps",
}
CLAIMS = (
    ("post-block is near full fine-tuning", "nonlinear", "full"),
    ("post-block is ahead of ReFT", "nonlinear", "reft"),
    ("post-block is ahead of post-MLP", "nonlinear", "post_mlp"),
    ("post-block is near or ahead of LoRA", "nonlinear", "lora"),
    ("linear is level with nonlinear", "linear", "nonlinear"),
    ("r=1 is near r=8", "rank1", "nonlinear"),
    ("joint is ahead of post-block", "joint", "nonlinear"),
    ("joint is ahead of LoRA", "joint", "lora"),
    ("the rule helps joint adaptation", "joint", "joint_free"),
)


@dataclass(frozen=True)
class Result:
    """The tested cells of a method: its label, trained parameters, chosen rate, and outcomes of each seed."""

    label: str
    trainable: int | None
    rate: str
    at_edge: bool
    validated: str
    choices: Sequence[str]
    exact: Sequence[str]
    seconds: float | None

    @property
    def done(self) -> bool:
        """True if at least one seed is scored on the test rows."""
        return bool(self.choices)


def read_results(model: str, table: str) -> dict[str, Result]:
    """Return the results of a comparison by method, in the order of the methods file."""
    records = read_records(model, table)
    return {name: _result(name, records[name]) for name in ("base", *ENTRIES) if name in records}


def _result(name: str, cells: dict[str, dict[str, Any]]) -> Result:
    tested = {cell: record for cell, record in sorted(cells.items()) if record["test"]}
    entry = ENTRIES.get(name, {"label": "untouched base", "rates": []})
    rate = next((float(cell.removeprefix("lr-").rpartition("-seed-")[0]) for cell in tested if name != "base"), None)
    rates = sorted(map(float, entry["rates"]))
    fits = [record["fit"] for record in tested.values() if record["fit"]]
    return Result(
        label=entry["label"],
        trainable=fits[0]["trainable"] if fits else None,
        rate="–" if rate is None else short_rate(rate),
        at_edge=rate is not None and rate in (rates[0], rates[-1]),
        validated=f"{sum(cell.endswith('-seed-0') for cell in cells)} of {len(rates)} rates",
        choices=[record["test"]["choices"] for record in tested.values()],
        exact=[record["test"]["outcomes"] for record in tested.values()],
        seconds=mean(fit["seconds"] for fit in fits) if fits else None,
    )


def main_table(results: dict[str, Result]) -> Iterator[str]:
    """Yield the lines of the table of all methods."""
    yield "| method | trained | rate | seeds | choice accuracy ± sd | 95 % interval | exact match | minus LoRA |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    lora = results.get("lora")
    for name, result in results.items():
        if not result.done:
            yield f"| {result.label} | | | 0 ({result.validated}) | | | | |"
            continue
        scores = [100 * text.count("1") / len(text) for text in result.choices]
        spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
        interval = accuracy_interval(result.choices)
        exact = mean(100 * text.count("1") / len(text) for text in result.exact)
        to_lora = (
            str(difference_interval(result.choices, lora.choices)) if lora and lora.done and name != "lora" else ""
        )
        trainable = "0" if result.trainable is None else f"{result.trainable:,}"
        edge = "*" if result.at_edge else ""
        yield (
            f"| {result.label} | {trainable} | {result.rate}{edge} | {len(scores)} | {mean(scores):.1f}{spread} | "
            f"{interval.low:.1f} to {interval.high:.1f} | {exact:.1f} | {to_lora} |"
        )


def verdict(interval: Interval) -> str:
    """Return the direction of a difference, or that its sign is open.

    >>> verdict(Interval(2.0, 0.5, 3.1)), verdict(Interval(0.1, -1.0, 1.2))
    ('higher', 'not separated')
    """
    return "higher" if interval.low > 0 else "lower" if interval.high < 0 else "not separated"


def claims_table(tables: dict[str, dict[str, Result]]) -> Iterator[str]:
    """Yield the lines of the table of the paper's claims: one difference for each task."""
    yield f"| claim | difference | {' | '.join(tables)} |"
    yield f"|---|---|{'---:|' * len(tables)}"
    for claim, first, second in CLAIMS:
        cells = [_difference(results, first, second) for results in tables.values()]
        yield f"| {claim} | {ENTRIES[first]['label']} – {ENTRIES[second]['label']} | {' | '.join(cells)} |"


def _difference(results: dict[str, Result], first: str, second: str) -> str:
    pair = [results.get(name) for name in (first, second)]
    if not all(result and result.done for result in pair):
        return ""
    interval = difference_interval(*(result.choices for result in pair if result))
    return f"{interval}, {verdict(interval)}"


def page() -> str:
    """Return the part of the page below `MARK`."""
    all_results = {title: results for key, title in TABLES.items() if (results := read_results(*key))}
    lines = ["## The claims", ""]
    lines += ["Differences in choice accuracy, in percentage points, with their 95 % intervals.", ""]
    lines += claims_table({title: results for title, results in all_results.items() if "with" not in title})
    for title, results in all_results.items():
        lines += ["", f"## {title}", "", *main_table(results)]
    lines += ["", "A star marks a rate at the end of its grid."]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    PAGE.write_text(f"{text}\n\n{MARK}\n\n{page()}", encoding="utf-8")


if __name__ == "__main__":
    main()
