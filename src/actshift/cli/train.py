"""`actshift train`: adapt a model to data, or plan such a run."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from typer import Option

from actshift.cli import options
from actshift.cli.output import PlainConsole, host_range, number_columns, print_json, print_tables
from actshift.errors import ActshiftError, require
from actshift.training.settings import TrainSettings, check_code, read_config_file

if TYPE_CHECKING:
    from actshift.analysis import Redundancy
    from actshift.training import Plan, TrainResult


@options.flags_of(TrainSettings)
def train(
    *,
    config: Annotated[str | None, Option(help="YAML or JSON file of settings; flags override it.")] = None,
    resume: options.Resume = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be trained, and its size.")] = False,
    json: options.AsJson = False,
    **flags: Any,
) -> None:
    """Adapt a model to your data by steering, LoRA, both together, or full fine-tuning.

    Rows have a prompt and a completion, messages, or text; only completions count in the loss. With --eval-data or
    --eval-share, the checkpoint with the lowest evaluation loss is kept.
    """
    settings = _settings(config, {name: value for name, value in flags.items() if value is not None}, resume)
    if dry_run:
        from actshift.training import plan

        planned = plan(settings)
        _show(planned.to_dict(), _plan_tables(planned), json)
        return
    from actshift.training import train as run

    try:
        with PlainConsole(stderr=True).status("Loading the libraries …"):
            require("trl.trainer.sft_trainer", "train")
        result = run(settings, resume)
    except KeyboardInterrupt:
        raise _interrupted(str(settings.out)) from None
    # The code of a model runs only on request of this command: a finished folder may come from a stranger.
    halves, lines = _measure_halves(replace(result.settings, trust_remote_code=settings.trust_remote_code))
    _show({**result.to_dict(), **halves}, [_result_table(result), *lines], json)


def _settings(config: str | None, flags: dict[str, Any], resume: bool) -> TrainSettings:
    """Return the settings of the run: flags override the config file, and both override a stored run."""
    stored = read_config_file(config) if config is not None else {}
    if config is not None:
        check_code(f"The config file {config}", stored, flags)
    values = {**stored, **flags}
    if resume and values.get("out"):
        from actshift.training import stored_settings

        values = {**stored_settings(values["out"], values), **values}
    return TrainSettings.from_mapping(values)


def _interrupted(out: str) -> ActshiftError:
    from actshift.training.run_folder import RunFolder

    if not RunFolder(Path(out)).unfinished:
        return ActshiftError("Interrupted before the first step; nothing was written.")
    command = f"actshift train --out {shlex.quote(out)} --resume"
    return ActshiftError(f"Interrupted; continue from the last checkpoint with: {command}")


def _show(figures: dict[str, Any], tables: Sequence[Table | str], json: bool) -> None:
    if json:
        print_json(figures, indent=2)
    else:
        print_tables(*tables)


def _plan_tables(plan: Plan) -> list[Table]:
    """Return tables of the places that a run would adapt, and of its size in parameters, steps and memory."""
    memory = plan.memory
    parts = " + ".join(f"{getattr(memory, part) / 1e6:,.1f} {part}" for part in ("weights", "training", "activations"))
    about = "about " if plan.sampled else ""
    rows = f"{about}{plan.rows:,}, the longest {about}{plan.longest:,} tokens"
    figures = {
        "trainable": f"{plan.trainable:,} of {plan.parameters:,} parameters ({plan.share:.3%})",
        "rows": rows + _left_out(plan.left_out),
        "estimated from": plan.sampled and f"{plan.sampled:,} random rows; the other rows were not tokenized",
        "layout": plan.layout,
        "evaluation rows": f"{plan.eval_rows:,}",
        "steps": f"{about}{plan.steps:,}",
        "memory, about": f"{memory.total / 1e6:,.1f} MB ({parts})",
        "cached prefix, about": plan.cache and f"{plan.cache / 1e6:,.1f} MB",
    }
    sites = Table("site", "modules", *number_columns("width", "parameters"), title="Sites", title_justify="left")
    maps = Table("map", *number_columns("count", "parameters"), title="LoRA", title_justify="left")
    sizes_by_map: dict[str, list[int]] = {}
    steered: dict[tuple[str, int, int, str], list[str]] = {}  # modules that differ in the number of their block only
    for place in plan.places:
        if place.layer is None:
            sizes_by_map.setdefault(place.module.rpartition(".")[2], []).append(place.parameters)
        else:
            kind = re.sub(r"\d+", "#", place.module)
            steered.setdefault((place.site, place.width, place.parameters, kind), []).append(place.module)
    for (site, width, parameters, _), modules in steered.items():
        for run in _consecutive(modules):
            sites.add_row(site, host_range(run), f"{width:,}", f"{parameters * len(run):,}")
    for name, sizes in sizes_by_map.items():
        maps.add_row(name, str(len(sizes)), f"{sum(sizes):,}")
    return [*(table for table in (sites, maps) if table.row_count), _figures_table(figures)]


def _consecutive(modules: Sequence[str]) -> Iterator[list[str]]:
    """Yield runs of modules whose blocks follow each other."""
    run: list[str] = []
    for module in modules:
        block = re.search(r"\d+", module)
        if run and not (block and re.sub(r"\d+", str(int(block[0]) - 1), module, count=1) == run[-1]):
            yield run
            run = []
        run.append(module)
    yield run


def _result_table(result: TrainResult) -> Table:
    fit = result.fit
    figures = {
        "result": str(result.folder),
        "heads": result.selection and str(result.selection),
        "trainable": f"{fit.trainable:,} of {fit.parameters:,} parameters ({fit.share:.3%})",
        "rows": f"{fit.rows:,}" + _left_out(fit.left_out),
        "steps": f"{fit.steps:,}",
        "train loss": f"{fit.train_loss:.4f}",
        "best eval loss": fit.eval_loss is not None and f"{fit.eval_loss:.4f} at step {fit.best_step:,}",
        **{name: f"{value:.3f}" for name, value in fit.figures.items()},
        "size on disk": _size(result.folder_bytes),
        "time": f"{fit.seconds:,.1f} s",
    }
    return _figures_table(figures)


def _figures_table(figures: Mapping[str, Any]) -> Table:
    table = Table(show_header=False)
    for name, value in figures.items():
        if value:
            table.add_row(name, value)
    return table


def _size(count: int) -> str:
    return f"{count / 1e3:,.1f} kB" if count < 1e7 else f"{count / 1e6:,.1f} MB"


def _left_out(rows: int) -> str:
    return f"; {rows:,} longer than max_length left out" if rows else ""


def _measure_halves(settings: TrainSettings) -> tuple[dict[str, Any], list[str]]:
    """Return the figures and the text about a joint adapter's halves, nothing for other methods."""
    if settings.method != "joint":
        return {}, []
    try:
        with PlainConsole(stderr=True).status("Measuring both halves …"):
            violation, measured, held_out = _redundancy(settings)
    except ActshiftError as error:  # only a warning: a finished run stays valid if its rows are gone
        warnings.warn(f"The halves of the adapter could not be measured: {error}", stacklevel=2)
        return {}, []
    rows = "held-out rows" if held_out else "training rows; use --eval-share to hold some out"
    text = f"{measured}\nMeasured on {rows}."
    if violation is not None:
        text += f"\nIn the saved file at most {violation:.1e} of a row of W_down lies in col(B)."
    return {"halves": {"violation": violation, "held_out": held_out, **measured.to_dict()}}, [text]


def _redundancy(settings: TrainSettings) -> tuple[float | None, Redundancy, bool]:
    """Return the largest share of a W_down row in col(B), if bound; the redundancy; and whether rows were held out."""
    from actshift.analysis import redundancy
    from actshift.data.collate import pad_batch
    from actshift.training.build import load_base
    from actshift.training.data import read_inputs
    from actshift.tuner import load_adapter, orthogonality_violations, steering_layers

    inputs = read_inputs(settings)
    base, tokenizer = load_base(settings, inputs.head, inputs.config)
    model = load_adapter(base, str(settings.out)).eval()
    bound = any(layer.constraints for layer in steering_layers(model).values())
    violation = max(orthogonality_violations(model).values()) if bound else None
    read = inputs.examples(tokenizer, settings)
    examples, size = inputs.objective.model_inputs(read.held_out or read.train, tokenizer), settings.batch_size
    batches = (pad_batch(examples[start : start + size], tokenizer) for start in range(0, len(examples), size))
    return violation, redundancy(model, batches), read.held_out is not None
