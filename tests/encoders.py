"""Tiny encoders on disk, and rows to train them on, whose labels follow from the words of a text."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tiny import word_tokenizer
from tests.zoo import with_head

LABELS = ("dull", "fine")


def save_encoder(folder: Path, name: str = "bert", auto: str = "AutoModel", **overrides: Any) -> Path:
    """Save an encoder of the zoo, by default without a head, with a tokenizer."""
    with_head(name, auto, **overrides).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def classed(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return texts of different lengths: words w0 to w3 for one class, w40 to w43 for the other."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [f"w{draw.randrange(4) + 40 * label}" for _ in range(draw.randrange(2, 7))]
        rows.append({"text": " ".join(words), "label": LABELS[label]})
    return rows


def tagged(count: int, seed: int = 0) -> list[dict[str, list[str]]]:
    """Return words w0 to w7 with a tag each: LOW if their number is below 4, else HIGH."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        numbers = [draw.randrange(8) for _ in range(draw.randrange(1, 7))]
        rows.append({"tokens": [f"w{n}" for n in numbers], "tags": ["LOW" if n < 4 else "HIGH" for n in numbers]})
    return rows


def paired(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return pairs of texts: three words of w0 to w11, and the words 45 higher in reversed order."""
    draw = random.Random(seed)
    numbers = [[draw.randrange(12) for _ in range(3)] for _ in range(count)]
    return [
        {"text": " ".join(f"w{n}" for n in row), "text_pair": " ".join(f"w{n + 45}" for n in reversed(row))}
        for row in numbers
    ]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
