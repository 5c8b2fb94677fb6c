"""`actshift generate`: completions by the base model and by adapters, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

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


@dataclass(frozen=True)
class Completions:
    """A prompt with its completion by the base model (None if not requested) and by each adapter."""

    prompt: str
    base: str | None
    adapters: dict[str, str]


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
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Complete prompts with a model and adapters, side by side if requested."""
    texts = _read_prompts(prompt, prompts)
    sources = adapters or []
    if duplicates := [source for source in sources if sources.count(source) > 1]:
        raise ActshiftError(f"The adapter {duplicates[0]} is given twice. Give each adapter once.")
    loaded, tokenizer, names = load_steered(model, sources, strength, trust_remote_code, half)

    from actshift.evaluation import generate_completions

    completions: dict[str, list[str]] = {}
    for name in [BASE, *names] if compare or not names else names:
        with active_adapter(loaded, name, half):
            completions[name] = generate_completions(
                loaded,
                tokenizer,
                texts,
                max_new_tokens,
                temperature=temperature,
                long_prompts=long_prompts,
                show_progress=True,
            )
    by_base = completions.get(BASE)
    _print(
        [
            Completions(
                text,
                by_base[row] if by_base else None,
                {source: completions[name][row] for source, name in zip(sources, names, strict=True)},
            )
            for row, text in enumerate(texts)
        ],
        as_json,
    )


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
    return [_parse_prompt(line, file, number) for number, line in enumerate(lines, start=1)]


def _parse_prompt(line: str, file: Path, number: int) -> str:
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, TypeError, KeyError) as error:
        raise ActshiftError(f'Row {number} of {file} is not a JSON object with a "prompt".') from error


def _print(rows: list[Completions], as_json: bool) -> None:
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    texts = [text for row in rows for text in (row.base, *row.adapters.values()) if text is not None]
    if len(texts) == 1:  # plain text, for other programs to read
        typer.echo(texts[0])
        return
    sources = list(rows[0].adapters)
    short = [Path(source).name for source in sources]
    names = [*(["base"] if rows[0].base is not None else []), *(short if len({*short}) == len(short) else sources)]
    table = Table("prompt", *map(escape, names), show_lines=True)
    for row in rows:
        table.add_row(*(Text(text) for text in (row.prompt, row.base, *row.adapters.values()) if text is not None))
    Console().print(table)
