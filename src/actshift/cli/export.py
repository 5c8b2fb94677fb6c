"""`actshift export`: an adapter as merged weights, or one half of a joint adapter as its own adapter."""

from pathlib import Path
from typing import Annotated

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered
from actshift.cli.output import echo
from actshift.errors import ActshiftError, did_you_mean
from actshift.files import atomic_folder, check_new_folder


def export(
    adapter: Annotated[str, Option(help="Adapter: a folder or a Hugging Face id.")],
    out: Annotated[Path, Option(help="New folder for the result.")],
    model: options.Model = None,
    to: Annotated[str | None, Option(help="Form: merged, a plain checkpoint with the adapter in its weights.")] = None,
    half: Annotated[str | None, Option(help="Half of a joint adapter to save alone: weights or activations.")] = None,
    strength: options.Strength = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Merge an adapter into its model's weights, or save one half of a joint adapter.

    An adapter can be merged only if the result is exact: a LoRA, or a linear shift at a site that a weight feeds.
    """
    if (to is None) == (half is None):
        raise ActshiftError("Say what to write: --to merged, or --half weights or activations.")
    if to not in (None, "merged"):
        raise ActshiftError(f"There is no form {to!r}{did_you_mean(to, ['merged'])}. --to takes only merged.")
    check_new_folder(out)
    loaded, tokenizer, [name] = load_steered(model, [adapter], strength, trust_remote_code, revision=revision)
    if half is not None:
        from actshift.tuner import save_half

        save_half(loaded, half, out, name)
        echo(f"written   {out}")
        return

    from actshift.analysis.folding import merged
    from actshift.training.trainer import quiet_libraries

    plain = merged(loaded)
    with quiet_libraries(), atomic_folder(out) as folder:
        plain.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    echo(f"written   {out}, an ordinary {type(plain).__name__}")
