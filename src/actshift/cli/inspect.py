"""`actshift inspect`: what an adapter or a model is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from actshift.cli.steered import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from actshift.analysis import AdapterDescription, ModelDescription


def inspect(
    source: Annotated[str, typer.Argument(metavar="ADAPTER_OR_MODEL", help="A folder or a Hugging Face id.")],
    as_json: AsJson = False,
) -> None:
    """Show an adapter's sites, shapes, parameters and norms, or where and at what cost a model can be steered."""
    import json

    from rich.console import Console

    from actshift.analysis import AdapterDescription, describe

    description = describe(source)
    if as_json:
        typer.echo(json.dumps(description.to_dict(), ensure_ascii=False))
        return
    facts, table = _adapter(description) if isinstance(description, AdapterDescription) else _model(description)
    console = Console(highlight=False)
    for name, fact in facts.items():
        console.print(f"{name:<12}{fact}", markup=False, soft_wrap=True)
    console.print("", table, sep="\n")


def _adapter(described: AdapterDescription) -> tuple[dict[str, str], Table]:
    from rich.table import Column, Table

    share = "" if described.share is None else f", {_percent(described.share)} of the base"
    other = f", {described.other_parameters:,} of them outside the sites" if described.other_parameters else ""
    facts = {
        "adapter": described.source,
        "base": described.base_model or "not named",
        "shift": f"{described.adapter} at {described.site}, {described.positions}",
        "parameters": f"{described.parameters:,} {described.dtype}{share}{other}",
        "file": _size(described.file_bytes),
    }
    if described.weights:
        facts["weights"] = described.weights
    names = list(dict.fromkeys(name for site in described.sites for name in site.norms))
    heads = [f"‖{_NORMS.get(name, name)}‖" for name in names]
    table = Table(Column("module", no_wrap=True), "shapes", "params", *heads, box=None, pad_edge=False)
    for site in described.sites:
        shapes = ", ".join(f"{name.removesuffix('.weight')} {_times(shape)}" for name, shape in site.shapes.items())
        norms = (f"{site.norms[name]:.4g}" if name in site.norms else "" for name in names)
        table.add_row(site.module, shapes, f"{site.parameters:,}", *norms)
    return facts, table


def _model(described: ModelDescription) -> tuple[dict[str, str], Table]:
    from rich.markup import escape
    from rich.table import Column, Table

    from actshift.analysis.describe import RANK

    facts = {
        "model": described.source,
        "kind": f"{described.architecture} ({described.model_type})",
        "blocks": f"{described.blocks} {described.block}, d_model {described.d_model}",
        "parameters": f"{described.parameters:,}",
    }
    if described.file_bytes:
        facts["file"] = _size(described.file_bytes)
    table = Table(
        "site", Column("hosts", overflow="fold"), f"parameters at rank {RANK}", "share", box=None, pad_edge=False
    )
    for option in described.sites:
        if option.problem:
            table.add_row(option.site, escape(option.problem), "", "")
        else:
            table.add_row(option.site, _span(option.hosts), f"{option.parameters:,}", _percent(option.share))
    return facts, table


_NORMS = {"down.weight": "W_down", "up.weight": "W_up", "product": "W_up·W_down", "vector": "v"}


def _span(hosts: Sequence[str]) -> str:
    """Name hosts that differ in a number alone by one word: layers.0.mlp to layers.5.mlp is layers.0…5.mlp."""
    first, last = hosts[0].split("."), hosts[-1].split(".")
    if len(first) != len(last) or sum(map(str.__ne__, first, last)) > 1:  # two stacks
        return ", ".join(hosts)
    return ".".join(a if a == b else f"{a}…{b}" for a, b in zip(first, last, strict=True))


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _size(size: int) -> str:
    return f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:.1f} MB"
