"""`actshift train`: adapt a model to data."""

from __future__ import annotations

import json as json_format
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from actshift.cli.joint import JointReport, joint_report
from actshift.cli.options import flags_of
from actshift.cli.train_tables import plan_tables, result_tables
from actshift.errors import ActshiftError
from actshift.extras import require
from actshift.training.settings import TrainSettings, read_config_file


@flags_of(TrainSettings)
def train(
    *,
    config: Annotated[str | None, typer.Option(help="YAML or JSON file of settings; flags override it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and train nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    **flags: Any,
) -> None:
    """Adapt a model to rows of prompt + completion, messages, or text: by steering, LoRA, both, or in every weight.

    The loss counts completions only. With --eval-data or --eval-share the state of lowest loss there is kept.
    """
    settings = _settings(config, {name: value for name, value in flags.items() if value is not None}, resume)
    if dry_run:
        from actshift.training import plan

        foreseen = plan(settings)
        _show(foreseen.to_dict(), plan_tables(foreseen), json)
        return
    from actshift.training import train as run

    try:
        with Console(stderr=True).status("Loading the libraries …"):
            require("trl.trainer.sft_trainer", "train")
        result = run(settings, resume)
    except KeyboardInterrupt:
        raise _interrupted(str(settings.out)) from None
    halves = _halves(result.settings)
    figures = {**result.to_dict(), **({"halves": halves.to_dict()} if halves else {})}
    _show(figures, [*result_tables(result), *([str(halves)] if halves else [])], json)


def _show(figures: dict[str, Any], tables: Sequence[Table | str], json: bool) -> None:
    if json:
        print(json_format.dumps(figures, indent=2))
    else:
        Console().print(*tables, sep="\n")


def _interrupted(out: str) -> ActshiftError:
    from actshift.training.run_folder import RunFolder

    if not RunFolder(Path(out)).unfinished:
        return ActshiftError("Interrupted before the first step; nothing was written.")
    again = f"actshift train --out {shlex.quote(out)} --resume"
    return ActshiftError(f"Interrupted; go on from the last checkpoint with: {again}")


def _settings(config: str | None, flags: dict[str, Any], resume: bool) -> TrainSettings:
    values = {**(read_config_file(config) if config else {}), **flags}
    if resume and values.get("out"):
        from actshift.training import stored_settings

        values = {**stored_settings(values["out"]), **values}
    return TrainSettings.from_mapping(values)


def _halves(settings: TrainSettings) -> JointReport | None:
    """Measure a joint adapter; that the rows are gone since does not undo a run that is finished."""
    if settings.method != "joint":
        return None
    try:
        with Console(stderr=True).status("Measuring both halves …"):
            return joint_report(settings)
    except ActshiftError as error:
        warnings.warn(f"The halves of the adapter could not be measured: {error}", stacklevel=2)
        return None
