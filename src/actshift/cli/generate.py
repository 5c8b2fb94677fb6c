"""`actshift generate`: complete prompts, with the base and the steered model side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from actshift.cli.steered import (
    BASE,
    AsJson,
    Half,
    LongPrompts,
    MaxNewTokens,
    Model,
    Strength,
    Temperature,
    TrustRemoteCode,
    acting,
    load_steered,
)
from actshift.errors import ActshiftError


@dataclass(frozen=True)
class Completions:
    """One prompt, its completion by the base (None if it was not asked for), and by each adapter."""

    prompt: str
    base: str | None
    adapters: dict[str, str]


def generate(
    model: Model = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="An adapter's folder or Hugging Face id; repeatable."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="The text to complete, as it stands.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help='A file: a prompt per line, or .jsonl rows with "prompt".'),
    ] = None,
    strength: Strength = 1.0,
    half: Half = "both",
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 0.0,
    long_prompts: LongPrompts = "refuse",
    compare: Annotated[bool, typer.Option("--compare", help="Show what the base model writes beside it.")] = False,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Complete prompts with one or more adapters, side by side with the base model if asked to."""
    texts = _read_prompts(prompt, prompts)
    sources = adapters or []
    if twice := [source for source in sources if sources.count(source) > 1]:
        raise ActshiftError(f"The adapter {twice[0]} is given twice; give each one once.")
    loaded, tokenizer, names = load_steered(model, sources, strength, trust_remote_code, half)

    from actshift.evaluation import generate_completions

    written = {}
    for name in [BASE, *names] if compare or not names else names:
        with acting(loaded, name, half):
            written[name] = generate_completions(
                loaded,
                tokenizer,
                texts,
                max_new_tokens,
                temperature=temperature,
                long_prompts=long_prompts,
                show_progress=True,
            )
    base = written.pop(BASE, [None] * len(texts))
    by_prompt = zip(*written.values(), strict=True) if names else [()] * len(texts)
    results = [
        Completions(text, plain, dict(zip(sources, steered, strict=True)))
        for text, plain, steered in zip(texts, base, by_prompt, strict=True)
    ]
    _show(results, as_json)


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
        raise ActshiftError(f"{file} holds no prompts; write one per line.")
    return [_prompt_of(line, file, at) for at, line in enumerate(lines, 1)] if file.suffix == ".jsonl" else lines


def _prompt_of(line: str, file: Path, number: int) -> str:
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, TypeError, KeyError) as error:
        raise ActshiftError(f'Row {number} of {file} is not a JSON object with a "prompt".') from error


def _show(results: list[Completions], as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if as_json:
        typer.echo(json.dumps([asdict(row) for row in results], ensure_ascii=False))
        return
    only = [text for row in results for text in (row.base, *row.adapters.values()) if text is not None]
    if len(only) == 1:  # one prompt, one completion: as plain text, to be read on by something else
        typer.echo(only[0])
        return
    sources = list(results[0].adapters)
    short = [Path(source).name for source in sources]
    heads = [*(["base"] if results[0].base is not None else []), *(short if len({*short}) == len(short) else sources)]
    table = Table("prompt", *map(escape, heads), show_lines=True)
    for row in results:
        table.add_row(*(Text(text) for text in (row.prompt, row.base, *row.adapters.values()) if text is not None))
    Console().print(table)
