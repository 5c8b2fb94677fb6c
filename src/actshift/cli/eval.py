"""`actshift eval`: exact-match accuracy of greedy completions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actshift.cli.steered import Adapter, AsJson, Half, MaxNewTokens, Model, Strength, TrustRemoteCode, load_steered

if TYPE_CHECKING:
    from actshift.evaluation import EvalReport


def evaluate(
    data: Annotated[str, typer.Option("--data", help="A JSONL, CSV or Parquet file, or a dataset's id, as for train.")],
    model: Model = None,
    adapter: Adapter = None,
    split: Annotated[str | None, typer.Option("--split", help="The split of a dataset on the hub.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first rows.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")] = 16,
    max_new_tokens: MaxNewTokens = 64,
    strength: Strength = 1.0,
    half: Half = "both",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write all predictions to this JSONL file.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure the share of rows whose completion the model writes exactly, decoding greedily."""
    from actshift.data import load_rows
    from actshift.files import check_writable

    if out is not None:
        check_writable(out)
    rows = load_rows(data, split, limit)
    loaded, tokenizer, _ = load_steered(model, [adapter] if adapter else [], strength, trust_remote_code, half)

    from actshift import evaluation

    report = evaluation.evaluate(loaded, tokenizer, rows, max_new_tokens, batch_size, show_progress=True)
    _show(report, as_json, out)


def _show(report: EvalReport, as_json: bool, out: Path | None) -> None:
    import json

    from actshift.files import write_whole

    figures = report.to_dict()
    rows = figures.pop("predictions")
    if out is not None:
        write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        typer.echo(str(report))
        if out is not None:
            typer.echo(f"written   {out}")
