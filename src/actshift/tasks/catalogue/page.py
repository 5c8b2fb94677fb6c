"""The page of tasks, docs/tasks.md."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from actshift.tasks.catalogue.entry import Entry, entry_of
from actshift.tasks.parts import SPLITS
from actshift.tasks.registry import get_task

OWN_TASK = Path(__file__).with_name("own_task.md")


def page(entries: Sequence[Entry]) -> str:
    """Return the page in Markdown: a table, each task with an example, and how to add one's own."""
    head = (
        "# Tasks\n\n"
        "Made by `actshift tasks --data-dir DIR --out docs/tasks.md`. Each is one name in `--task`; its rows come from "
        "the Hugging Face hub, at the commit named below, or from the files `DIR/<task>/<split>.jsonl.gz` of "
        "`--data-dir DIR`, whose sizes the table has where they were at hand.\n\n"
        "A size with `~` is a share of a split: which rows it takes follows from a hash of each prompt, so a cut is "
        "the same on every machine and never puts one prompt on two sides.\n"
    )
    sections = "\n".join(_section(entry) for entry in entries)
    return f"{head}\n{_table(entries)}\n\n{sections}\n{OWN_TASK.read_text(encoding='utf-8')}"


def _table(entries: Sequence[Entry]) -> str:
    lines = ["| task | what | train | validation | test | rows from | scorer | epochs | max length |",
             "|---|---|--:|--:|--:|---|---|--:|--:|"]  # fmt: skip
    for entry in entries:
        sizes = " | ".join(entry.size_text(split) for split in SPLITS)
        where = "the hub" if not entry.counted else "the folder"
        settings = f"{entry.settings['epochs']} | {entry.settings['max_length']}"
        lines.append(
            f"| [{entry.name}](#{entry.name}) | {entry.title} | {sizes} | {where} | {entry.scorer} | {settings} |"
        )
    return "\n".join(lines)


def _section(entry: Entry) -> str:
    about = import_module(f"actshift.tasks.benchmarks.{entry.name}").__doc__ or ""
    origin = "A training row" if entry.counted else "A made-up row in the hub's layout"
    there = entry_of(get_task(entry.name))
    return (
        f"## {entry.name}\n\n{about.strip()}\n\n"
        f"Source: {there.source} ({there.rows}). "
        f"At most {entry.max_new_tokens} new tokens are scored.\n\n"
        f"{origin}, prompt and completion:\n\n"
        f"{_fenced(entry.example.prompt)}\n{_fenced(entry.example.completion)}"
    )


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"
