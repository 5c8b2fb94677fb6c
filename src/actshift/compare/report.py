"""What a comparison found, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from actshift.compare.cell import BASE_CELL
from actshift.compare.methods import Method
from actshift.compare.protocol import SweepState


@dataclass(frozen=True)
class SweepPoint:
    """A learning rate of the sweep: validation accuracy (0 to 1) and loss (nats a token), or why it failed."""

    rate: float
    validation: float | None
    eval_loss: float | None
    failure: str | None


@dataclass(frozen=True)
class ReportRow:
    """One method's line: what it trains, the rate chosen, and the accuracies (0 to 1) of that rate's seeds.

    `state` says how far it is; `seconds` is the mean training time of a cell of the chosen rate.
    """

    method: str
    label: str
    settings: Mapping[str, Any]
    state: str
    trainable: int | None
    share: float | None
    rate: float | None
    lora_rate: float | None
    validation: tuple[float, ...]
    test: tuple[float, ...]
    to_full: float | None
    sweep: tuple[SweepPoint, ...]
    failures: tuple[str, ...]
    seconds: float | None

    @property
    def mean(self) -> float | None:
        """The mean test accuracy over seeds."""
        return mean(self.test) if self.test else None

    @property
    def spread(self) -> float | None:
        """The standard deviation of the test accuracy over seeds, of n - 1."""
        return stdev(self.test) if len(self.test) > 1 else None


@dataclass(frozen=True)
class CompareReport:
    """A comparison, finished or on its way: the base's accuracies and a row a method; it prints as a table.

    `protocol` is all that the methods have in common; `made` tells when, where and in what time it came about, and is
    the one part that another run of the same comparison may have otherwise. `left_out` counts training rows that
    were too long to be used.
    """

    protocol: Mapping[str, Any]
    base_parameters: int | None
    base_validation: float | None
    base_test: float | None
    rows: tuple[ReportRow, ...]
    made: Mapping[str, Any]
    left_out: int = 0

    @property
    def failures(self) -> tuple[str, ...]:
        """Why cells failed, a line each."""
        return tuple(failure for row in self.rows for failure in row.failures)

    @property
    def title(self) -> str:
        """What tables and pictures call the model: a hub id, or the name of its folder without the way to it."""
        model = str(self.protocol["model"])
        return Path(model).name if Path(model).is_dir() else model

    @property
    def measure(self) -> str:
        """What the accuracies are of: the scorer's name says when a row counts as right."""
        from actshift.evaluation.report import EXACT_MATCH

        scorer = self.protocol["scorer"]
        return "Exact match" if scorer == EXACT_MATCH else f"Accuracy ({scorer})" if scorer else "Accuracy"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON, with the times in `made`."""
        rows = []
        for row in self.rows:
            values = asdict(row)
            values.pop("seconds")
            rows.append({**values, "mean": row.mean, "spread": row.spread})
        base = {"parameters": self.base_parameters, "validation": self.base_validation, "test": self.base_test}
        seconds = {row.method: row.seconds for row in self.rows}
        return {
            "protocol": {**self.protocol, "left_out": self.left_out},
            "base": base,
            "rows": rows,
            "made": {**self.made, "seconds": seconds},
        }

    def __str__(self) -> str:
        from actshift.compare.rendering import plain

        return plain(self)


def report_on(standing: SweepState, protocol: Mapping[str, Any], made: Mapping[str, Any]) -> CompareReport:
    """Return the report on all that `standing` knows by now."""
    base = standing.records.get(BASE_CELL)
    rows = [_row(standing, method) for method in standing.methods]
    full = next((row for row in rows if row.settings.get("method") == "full"), None)
    if full is not None and full.mean is not None:
        rows = [_beside(row, full) for row in rows]
    return CompareReport(
        protocol=protocol,
        base_parameters=base.parameters if base else None,
        base_validation=base.validation.accuracy if base else None,
        base_test=base.test.accuracy if base and base.test else None,
        rows=tuple(rows),
        made=made,
        left_out=max((record.fit.left_out for record in standing.records.values() if record.fit), default=0),
    )


def _row(standing: SweepState, method: Method) -> ReportRow:
    chosen = standing.chosen(method)
    records = [standing.records[cell] for cell in standing.repeats(method) if cell in standing.records]
    known = [record for cell, record in standing.records.items() if cell.method == method.name and record.fit]
    fits = [record.fit for record in records if record.fit]
    first = known[0] if known else None
    return ReportRow(
        method=method.name,
        label=method.label,
        settings=method.settings,
        state=_state(standing, method),
        trainable=first.trainable if first else None,
        share=first.trainable / first.parameters if first else None,
        rate=chosen.rate if chosen else None,
        lora_rate=method.lora_rate(chosen.rate) if chosen else None,
        validation=tuple(record.validation.accuracy for record in records),
        test=tuple(record.test.accuracy for record in records if record.test),
        to_full=None,
        sweep=tuple(_tries(standing, method)),
        failures=tuple(f"{cell}: {why}" for cell, why in standing.failed.items() if cell.method == method.name),
        seconds=mean(fit.seconds for fit in fits) if fits else None,
    )


def _tries(standing: SweepState, method: Method) -> list[SweepPoint]:
    tries = []
    for cell in standing.sweep(method):
        record = standing.records.get(cell)
        accuracy = record.validation.accuracy if record else None
        loss = record.fit.eval_loss if record and record.fit else None
        tries.append(SweepPoint(cell.rate, accuracy, loss, standing.failed.get(cell)))
    return tries


def _state(standing: SweepState, method: Method) -> str:
    sweep, repeats = standing.sweep(method), standing.repeats(method)
    if not repeats:
        settled = sum(cell in standing.records or cell in standing.failed for cell in sweep)
        return "failed" if settled == len(sweep) else f"rate {settled}/{len(sweep)}" if settled else "waiting"
    tested = standing.tested(method)
    settled = sum(cell in tested or cell in standing.failed for cell in repeats)
    if settled < len(repeats):
        return f"seed {settled}/{len(repeats)}"
    return "done" if tested else "failed"


def _beside(row: ReportRow, full: ReportRow) -> ReportRow:
    difference = row.mean - full.mean if row.mean is not None and full.mean is not None and row != full else None
    return replace(row, to_full=difference)
