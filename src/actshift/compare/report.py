"""The report of a comparison: one row for each method, which prints as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.methods import Method
from actshift.compare.protocol import SweepState

if TYPE_CHECKING:
    from rich.table import Table

NONE = "–"


@dataclass(frozen=True)
class SweepPoint:
    """A learning rate of the sweep: validation accuracy (0 to 1) and loss (nats per token), or the error."""

    rate: float
    validation: float | None
    eval_loss: float | None
    failure: str | None


@dataclass(frozen=True)
class ReportRow:
    """The result of one method: trained parameters, chosen rate, and the accuracies (0 to 1) of its seeds.

    Args:
        state: progress of the method ("waiting", "rate 1/5", "seed 1/3", "done" or "failed").
        share: trained parameters as a share of all parameters, 0 to 1.
        to_full: difference of the mean test accuracy to full fine-tuning.
        seconds: mean training time of a cell at the chosen rate.
        choices: test accuracy of the most probable choice with each seed, if the rows have choices.
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
    choices: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean test accuracy over seeds."""
        return mean(self.test) if self.test else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the test accuracy over seeds."""
        return stdev(self.test) if len(self.test) > 1 else None


@dataclass(frozen=True)
class CompareReport:
    """A comparison, finished or in progress: one row for the base model and each method. It prints as a table.

    Args:
        protocol: the settings, rows and seeds that all methods share.
        made: command, date, machine and versions; the only part that differs when the comparison is repeated.
        left_out: number of training rows that were too long to be used.
        base_choices: test accuracy of the base model's most probable choice, if the rows have choices.
    """

    protocol: Mapping[str, Any]
    base_parameters: int | None
    base_validation: float | None
    base_test: float | None
    rows: tuple[ReportRow, ...]
    made: Mapping[str, Any]
    left_out: int = 0
    base_choices: float | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each cell that failed."""
        return tuple(failure for row in self.rows for failure in row.failures)

    @property
    def title(self) -> str:
        """Name of the model in tables and figures: its hub id, or the name of its folder."""
        model = str(self.protocol["model"])
        return Path(model).name if Path(model).exists() else model

    @property
    def measure(self) -> str:
        """Name of the accuracy: exact match, or accuracy by a scorer."""
        from actshift.evaluation.report import EXACT_MATCH

        scorer = self.protocol["scorer"]
        return "Exact match" if scorer == EXACT_MATCH else f"Accuracy ({scorer})" if scorer else "Accuracy"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with the training times under `made`."""
        rows = [{**asdict(row), "mean": row.mean, "spread": row.spread} for row in self.rows]
        return {
            "protocol": {**self.protocol, "left_out": self.left_out},
            "base": {
                "parameters": self.base_parameters,
                "validation": self.base_validation,
                "test": self.base_test,
                "choices": self.base_choices,
            },
            "rows": rows,
            "made": {**self.made, "seconds": {row["method"]: row.pop("seconds") for row in rows}},
        }

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=120, color_system=None, markup=False, emoji=False).print(rich_table(self))
        return text.getvalue().rstrip()


def build_report(state: SweepState, protocol: Mapping[str, Any], made: Mapping[str, Any]) -> CompareReport:
    """Return the report of the cells that are done so far."""
    base = state.records.get(BASE_CELL)
    rows = [_build_row(state, method) for method in state.methods]
    full = next((row for row in rows if row.settings.get("method") == "full"), None)
    if full and full.mean is not None:
        rows = [row if row is full or row.mean is None else replace(row, to_full=row.mean - full.mean) for row in rows]
    scores = (base and base.parameters, base and base.validation.accuracy, base and base.test and base.test.accuracy)
    left_out = max((record.fit.left_out for record in state.records.values() if record.fit), default=0)
    choices = base and base.test and base.test.choice_accuracy
    return CompareReport(protocol, *scores, tuple(rows), made, left_out, choices)


def _build_row(state: SweepState, method: Method) -> ReportRow:
    chosen = state.chosen_cell(method)
    records = [state.records[cell] for cell in state.seed_cells(method) if cell in state.records]
    fits = [record.fit for cell, record in state.records.items() if cell.method == method.name and record.fit]
    return ReportRow(
        method=method.name,
        label=method.label,
        settings=method.settings,
        state=_method_state(state, method),
        trainable=fits[0].trainable if fits else None,
        share=fits[0].share if fits else None,
        rate=chosen.rate if chosen else None,
        lora_rate=method.lora_rate(chosen.rate) if chosen else None,
        validation=tuple(record.validation.accuracy for record in records),
        test=tuple(record.test.accuracy for record in records if record.test),
        to_full=None,
        sweep=tuple(_sweep_point(state, cell) for cell in state.sweep_cells(method)),
        failures=tuple(f"{cell}: {error}" for cell, error in state.failed.items() if cell.method == method.name),
        seconds=mean(record.fit.seconds for record in records if record.fit) if records else None,
        choices=tuple(
            share for record in records if record.test and (share := record.test.choice_accuracy) is not None
        ),
    )


def _sweep_point(state: SweepState, cell: Cell) -> SweepPoint:
    record = state.records.get(cell)
    loss = record and record.fit and record.fit.eval_loss
    return SweepPoint(cell.rate, record and record.validation.accuracy, loss, state.failed.get(cell))


def _method_state(state: SweepState, method: Method) -> str:
    seeds, tested = state.seed_cells(method), state.tested_cells(method)
    if not seeds:
        closed, rates = sum(map(state.is_closed, state.sweep_cells(method))), len(method.rates)
        return "failed" if closed == rates else f"rate {closed}/{rates}" if closed else "waiting"
    closed = sum(cell in tested or cell in state.failed for cell in seeds)
    return f"seed {closed}/{len(seeds)}" if closed < len(seeds) else "done" if tested else "failed"


def table_lines(report: CompareReport) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table as text: the names of the columns, the untouched base, and each method.

    The accuracy of the most probable choice takes the place of the share of parameters, if the rows have choices.
    """
    has_choices = report.base_choices is not None
    third = "choices" if has_choices else "share"
    yield ("method", "trainable", third, "rate", "valid.", "test ± sd", "Δ full", "seconds")
    base = (percent(report.base_validation), percent(report.base_test))
    yield ("untouched base", "0", percent(report.base_choices), NONE, *base, NONE, NONE)
    for row in report.rows:
        share = NONE if row.share is None else f"{100 * row.share:.3g}%"
        yield (
            row.label,
            NONE if row.trainable is None else f"{row.trainable:,}",
            percent(mean(row.choices) if row.choices else None) if has_choices else share,
            NONE if row.rate is None else "/".join(short_rate(rate) for rate in (row.rate, row.lora_rate) if rate),
            percent(mean(row.validation)) if row.validation else NONE,
            _test_text(row, report.protocol["seeds"]),
            NONE if row.to_full is None else f"{100 * row.to_full:+.1f}",
            NONE if row.seconds is None else f"{row.seconds:,.0f}",
        )


def rich_table(report: CompareReport) -> Table:
    """Return the table for a terminal of at least eighty columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    names, *lines = table_lines(report)
    numbers = [Column(name, justify="right", no_wrap=True) for name in names[1:]]
    table = Table(Column(names[0], overflow="fold"), *numbers, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.title, table.title_justify = f"{report.measure}, {report.title}", "left"
    table.caption, table.caption_justify = notes(report), "left"
    for line in lines:
        table.add_row(*line)
    return table


def notes(report: CompareReport) -> str:
    """Return the sentences that explain the table."""
    protocol, rows = report.protocol, report.protocol["rows"]
    sentences = [
        f"{rows['train']:,} training rows, {rows['validation']:,} validation rows, {rows['test']:,} test rows.",
        "Each method uses the learning rate that was best on the validation rows with the first seed.",
        f"The test column is the mean over {protocol['seeds']} seeds; sd is their standard deviation.",
        "Δ is the difference to full fine-tuning in percentage points.",
    ]
    if report.base_choices is not None:
        sentences.append("Choices is the share of test rows whose most probable choice is correct.")
    shared = protocol["shared_rows"].items()
    sentences += [f"{count} {name} rows are also in an earlier split." for name, count in shared if count]
    if report.left_out:
        sentences.append(f"{report.left_out:,} training rows were too long and were left out.")
    if report.failures:
        sentences.append(f"{len(report.failures)} cells failed; * marks a method with missing seeds.")
    return " ".join(sentences)


def short_rate(rate: float) -> str:
    """Return a learning rate in its shortest readable form.

    >>> short_rate(0.0015)
    '1.5e-3'
    """
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _test_text(row: ReportRow, seeds: int) -> str:
    if row.state != "done" or row.mean is None:
        return row.state
    spread = "" if row.spread is None else f" ± {percent(row.spread)}"
    return f"{percent(row.mean)}{spread}{'' if len(row.test) == seeds else '*'}"


def percent(share: float | None) -> str:
    """Return a share of 0 to 1 as a percentage without its sign."""
    return NONE if share is None else f"{100 * share:.1f}"
