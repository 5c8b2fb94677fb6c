"""`actshift generate`: completions by the base model and by adapters, side by side."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer import Option

from actshift.cli import options
from actshift.cli.models import BASE, active_adapter, load_steered
from actshift.cli.output import print_json
from actshift.errors import ActshiftError


def generate(
    model: options.Model = None,
    adapters: Annotated[list[str] | None, Option("--adapter", help="Adapter: a folder or an id (repeatable).")] = None,
    prompt: Annotated[str | None, Option(help="Text to complete.")] = None,
    prompts: Annotated[Path | None, Option(help='File of prompts: one per line, or .jsonl rows with "prompt".')] = None,
    strength: options.Strength = 1.0,
    half: options.Half = "both",
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per completion.")] = 64,
    temperature: options.Temperature = 0.0,
    long_prompts: options.LongPrompts = "refuse",
    compare: Annotated[bool, Option("--compare", help="Also show the base model's completions.")] = False,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Complete prompts with a model and adapters, side by side if requested."""
    texts = _read_prompts(prompt, prompts)
    sources = adapters or []
    if duplicates := [source for source in sources if sources.count(source) > 1]:
        raise ActshiftError(f"The adapter {duplicates[0]} is given twice. Give each adapter once.")
    loaded, tokenizer, names = load_steered(model, sources, strength, trust_remote_code, half, revision=revision)

    from actshift.evaluation import generate_completions

    name_of = {**({BASE: BASE} if compare or not sources else {}), **dict(zip(sources, names, strict=True))}
    how: dict[str, Any] = {"temperature": temperature, "long_prompts": long_prompts, "show_progress": True}
    completions: list[list[str]] = []
    for name in name_of.values():
        with active_adapter(loaded, name, half):
            completions.append(generate_completions(loaded, tokenizer, texts, max_new_tokens, **how))
    if as_json:
        rows = [dict(zip(name_of, row, strict=True)) for row in zip(*completions, strict=True)]
        pairs = zip(texts, rows, strict=True)
        print_json([{"prompt": text, "base": row.pop(BASE, None), "adapters": row} for text, row in pairs])
    elif len(texts) == len(name_of) == 1:
        typer.echo(completions[0][0])  # plain text, for other programs to read
    else:
        short = [Path(source).name for source in sources]
        titles = short if len({*short}) == len(short) else sources
        base = ["base"] if BASE in name_of else []
        table = Table("prompt", *base, *map(escape, titles), show_lines=True)
        for row in zip(texts, *completions, strict=True):
            table.add_row(*map(Text, row))
        Console().print(table)


def _read_prompts(prompt: str | None, file: Path | None) -> list[str]:
    if (prompt is None) == (file is None):
        raise ActshiftError("Give either --prompt with a text or --prompts with a file.")
    if file is None:
        return [prompt or ""]
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ActshiftError(f"{file} is not a text file in UTF-8.") from error
    if not lines:
        raise ActshiftError(f"{file} holds no prompts. Write one per line.")
    if file.suffix != ".jsonl":
        return lines
    prompts: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(str(json.loads(line)["prompt"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ActshiftError(f'Row {number} of {file} is not a JSON object with a "prompt".') from error
    return prompts
