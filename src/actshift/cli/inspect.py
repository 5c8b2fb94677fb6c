"""`actshift inspect`: the contents of an adapter, or the sites of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from actshift.cli import options
from actshift.cli.output import host_range, print_facts, print_json, print_tables

if TYPE_CHECKING:
    from actshift.analysis import AdapterDescription, ModelDescription

_NORM_SYMBOLS = {"down.weight": "W_down", "up.weight": "W_up", "product": "W_up·W_down", "vector": "v"}


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="ADAPTER_OR_MODEL", help="A folder, a GGUF file or a Hugging Face id.")
    ],
    as_json: options.AsJson = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub. Default: main.")] = None,
) -> None:
    """Show the contents of an adapter, or the sites of a model with their cost in parameters.

    For an adapter: its sites, shapes, parameters and norms. For a model: its blocks, and the parameters of each site.
    """
    from actshift.analysis import AdapterDescription, describe

    description = describe(source, revision)
    if as_json:
        print_json(description.to_dict())
    elif isinstance(description, AdapterDescription):
        _print_adapter(description)
    else:
        _print_model(description)


def _print_adapter(adapter: AdapterDescription) -> None:
    from actshift.analysis.sections import number

    share = "" if adapter.share is None else f", {_percent(adapter.share)} of the base"
    other = f", {adapter.other_parameters:,} of them outside the sites" if adapter.other_parameters else ""
    strength = "" if adapter.strength == 1 else f", strength {adapter.strength:.4g}"
    facts = {
        "adapter": adapter.source,
        "base": _base(adapter),
        "shift": f"{adapter.adapter} at {adapter.site}, {adapter.positions}{strength}",
        "parameters": f"{adapter.parameters:,} {adapter.dtype}{share}{other}",
        "file": _file_size(adapter.file_bytes),
        "weights": adapter.weights,
    }
    norm_names = list(dict.fromkeys(name for site in adapter.sites for name in site.norms))
    norm_columns = [f"‖{_NORM_SYMBOLS.get(name, name)}‖" for name in norm_names]
    table = Table(Column("module", no_wrap=True), "shapes", "params", *norm_columns, box=None, pad_edge=False)
    for site in adapter.sites:
        shapes = (f"{name.removesuffix('.weight')} {'×'.join(map(str, shape))}" for name, shape in site.shapes.items())
        norms = (number(site.norms[name], 4) if name in site.norms else "" for name in norm_names)
        table.add_row(site.module, ", ".join(shapes), f"{site.parameters:,}", *norms)
    print_facts(facts)
    print_tables("", table)


def _base(adapter: AdapterDescription) -> str:
    name = adapter.base_model or "not named"
    at = f" at {adapter.base_revision}" if adapter.base_revision else ""
    missing = adapter.base_model and adapter.share is None
    return f"{name}{at}{', not found on this machine' if missing else ''}"


def _print_model(model: ModelDescription) -> None:
    from actshift.analysis.describe import RANK

    facts = {
        "model": model.source,
        "kind": f"{model.architecture} ({model.model_type})",
        "blocks": f"{model.blocks} {model.block}, d_model {model.d_model}",
        "parameters": f"{model.parameters:,}",
        "file": _file_size(model.file_bytes),
    }
    columns = ("site", Column("hosts", overflow="fold"), f"params at r={RANK}", "share")
    table = Table(*columns, box=None, pad_edge=False)
    for site in model.sites:
        figures = () if site.problem else (f"{site.parameters:,}", _percent(site.share))
        table.add_row(site.site, site.problem or host_range(site.hosts), *figures)
    print_facts(facts)
    print_tables("", table)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _file_size(size: int | None) -> str | None:
    return None if not size else f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:.1f} MB"
