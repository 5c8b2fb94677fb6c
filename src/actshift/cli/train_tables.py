"""What `actshift train` prints of a run: what it would do, and what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from actshift.training import Plan, TrainResult


def plan_tables(plan: Plan) -> list[Table]:
    """Return where a run would adapt the model, and its size."""
    memory = plan.memory
    parts = " + ".join(f"{getattr(memory, part) / 1e6:,.1f} {part}" for part in ("weights", "training", "activations"))
    figures = {
        "trainable": f"{plan.trainable:,} of {plan.parameters:,} parameters ({plan.share:.3%})",
        "rows": f"{plan.rows:,}, the longest {plan.longest:,} tokens" + _left_out(plan.left_out),
        "evaluation rows": f"{plan.eval_rows:,}",
        "steps": f"{plan.steps:,}",
        "memory, about": f"{memory.total / 1e6:,.1f} MB ({parts})",
    }
    if plan.cache:
        figures["cached prefix, about"] = f"{plan.cache / 1e6:,.1f} MB"
    return [*_places(plan), _figures(figures)]


def _places(plan: Plan) -> list[Table]:
    """A table of what is steered, line by line, and of what has LoRA, by the names of the maps."""
    numbers = ("layer", "width", "parameters", "count")
    steered, maps = Table(title="Sites", title_justify="left"), Table(title="LoRA", title_justify="left")
    for table, names in ((steered, "layer site module width parameters"), (maps, "map count parameters")):
        for name in names.split():
            table.add_column(name, justify="right" if name in numbers else "left")
    adapted: dict[str, list[int]] = {}
    for place in plan.places:
        if place.layer is None:
            adapted.setdefault(place.module.rpartition(".")[2], []).append(place.parameters)
        else:
            steered.add_row(str(place.layer), place.site, place.module, f"{place.width:,}", f"{place.parameters:,}")
    for name, sizes in adapted.items():
        maps.add_row(name, str(len(sizes)), f"{sum(sizes):,}")
    return [table for table in (steered, maps) if table.row_count]


def result_tables(result: TrainResult) -> list[Table]:
    """Return the figures of a finished run."""
    fit = result.fit
    figures = {"result": str(result.folder)}
    if result.selection is not None:
        figures["heads"] = str(result.selection)
    figures |= {
        "trainable": f"{fit.trainable:,} of {fit.parameters:,} parameters ({fit.share:.3%})",
        "rows": f"{fit.rows:,}" + _left_out(fit.left_out),
        "steps": f"{fit.steps:,}",
        "train loss": f"{fit.train_loss:.4f}",
    }
    if fit.eval_loss is not None:
        figures["best eval loss"] = f"{fit.eval_loss:.4f} at step {fit.best_step:,}"
    figures |= {name: f"{value:.3f}" for name, value in fit.figures.items()}
    figures["size on disk"] = f"{result.folder_bytes / 1e3:,.1f} kB"
    figures["time"] = f"{fit.seconds:,.1f} s"
    return [_figures(figures)]


def _figures(figures: dict[str, str]) -> Table:
    table = Table(show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    return table


def _left_out(rows: int) -> str:
    return f"; {rows:,} longer than max_length left out" if rows else ""
