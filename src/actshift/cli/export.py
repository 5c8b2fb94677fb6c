"""`actshift export`: an adapter in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actshift.cli.steered import Model, Strength, TrustRemoteCode, load_steered
from actshift.errors import ActshiftError, did_you_mean


def export(
    adapter: Annotated[str, typer.Option("--adapter", help="The adapter's folder or Hugging Face id.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for what is written.")],
    model: Model = None,
    to: Annotated[
        str | None, typer.Option("--to", help="merged: an ordinary checkpoint with the adapter in its weights.")
    ] = None,
    half: Annotated[
        str | None, typer.Option("--half", help="Of a joint adapter: write weights or activations as its own adapter.")
    ] = None,
    strength: Strength = 1.0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge an adapter into its model's weights, where that is exact, or write one half of a joint adapter."""
    from actshift.files import check_new_folder

    if (to is None) == (half is None):
        raise ActshiftError("Say what to write: --to merged, or --half weights or activations.")
    if to not in (None, "merged"):
        raise ActshiftError(f"There is no form {to!r}{did_you_mean(to, ['merged'])}; --to takes merged.")
    check_new_folder(out)
    loaded, tokenizer, [name] = load_steered(model, [adapter], strength, trust_remote_code)
    if half is not None:
        from actshift.tuner import save_half

        save_half(loaded, half, out, name)
        typer.echo(f"written   {out}")
        return

    from actshift.analysis.folding import merged
    from actshift.training.trainer import quiet_libraries

    plain = merged(loaded)
    with quiet_libraries():
        plain.save_pretrained(str(out))
        tokenizer.save_pretrained(str(out))
    typer.echo(f"written   {out}, an ordinary {type(plain).__name__}")
