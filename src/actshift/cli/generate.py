"""`actshift generate`: completions by the base model and by adapters, side by side."""

from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from rich.text import Text
from typer import Option

from actshift.cli import options
from actshift.cli.models import BASE, active_adapter, load_steered
from actshift.cli.output import echo, print_json, print_tables
from actshift.cli.prompts import choose_chat, read_prompts
from actshift.errors import ActshiftError


def generate(
    model: options.Model = None,
    adapters: Annotated[list[str] | None, Option("--adapter", help="Adapter: a folder or an id (repeatable).")] = None,
    prompt: Annotated[str | None, Option(help="Text to complete.")] = None,
    prompts: Annotated[
        Path | None,
        Option(help='File of prompts: one per line, or rows (.jsonl, .csv …) with "prompt" or "messages".'),
    ] = None,
    strength: options.Strength = None,
    half: options.Half = "both",
    max_new_tokens: Annotated[int, Option(min=1, max=options.LARGEST, help="Maximum tokens per completion.")] = 64,
    temperature: options.Temperature = 0.0,
    long_prompts: options.LongPrompts = "refuse",
    chat: options.Chat = None,
    system: options.System = None,
    compare: Annotated[bool, Option("--compare", help="Also show the base model's completions.")] = False,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Complete prompts with a model and adapters, side by side if requested.

    Prompts of an adapter that was trained on messages are rendered by the chat template, as a user's turn.
    """
    given, sources = read_prompts(prompt, prompts), adapters or []
    if duplicates := [source for source in sources if sources.count(source) > 1]:
        raise ActshiftError(f"The adapter {duplicates[0]} is given twice. Give each adapter once.")
    are_messages = any(not isinstance(each.content, str) for each in given)
    mode = choose_chat(True if are_messages and chat is None else chat, system, sources or [model])
    loaded, tokenizer, names = load_steered(model, sources, strength, trust_remote_code, half, revision=revision)

    from actshift.evaluation import generate_completions

    texts = mode.render_all(given, tokenizer)

    name_of = {**({BASE: BASE} if compare or not sources else {}), **dict(zip(sources, names, strict=True))}
    how: dict[str, Any] = {"temperature": temperature, "long_prompts": long_prompts, "show_progress": True}
    how["add_special_tokens"] = not mode.rendered
    completions: list[list[str]] = []
    for name in name_of.values():
        with active_adapter(loaded, name, half):
            completions.append(generate_completions(loaded, tokenizer, texts, max_new_tokens, **how))
    if as_json:
        rows = [dict(zip(name_of, row, strict=True)) for row in zip(*completions, strict=True)]
        pairs = zip(given, rows, strict=True)
        print_json([{"prompt": each.content, "base": row.pop(BASE, None), "adapters": row} for each, row in pairs])
    elif len(texts) == len(name_of) == 1:
        echo(completions[0][0])  # plain text, for other programs to read
    else:
        short = [Path(source).name for source in sources]
        titles = short if len({*short}) == len(short) else sources
        base = ["base"] if BASE in name_of else []
        table = Table("prompt", *base, *titles, show_lines=True)
        contents = [each.content for each in given]
        shown = [each if isinstance(each, str) else text for each, text in zip(contents, texts, strict=True)]
        for row in zip(shown, *completions, strict=True):
            table.add_row(*map(Text, row))
        print_tables(table)
