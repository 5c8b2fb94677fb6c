"""Settings as the command line that gives them."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any


def command_line(verb: str, settings: Any) -> str:
    """Return the command line on which `verb` runs with `settings`, a class whose fields are its flags.

    >>> from actshift.training.settings import TrainSettings
    >>> command_line("actshift train", TrainSettings(model="gpt2", data="rows.jsonl", out="run", rank=4))
    'actshift train --model gpt2 --data rows.jsonl --out run --rank 4'
    """
    words = [verb]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value == item.default:
            continue
        flag = f"--{item.name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else [value]:
            words.append(_words(flag, one))
    return " ".join(words)


def _words(flag: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    return f"{flag} {shlex.quote(str(value))}"
