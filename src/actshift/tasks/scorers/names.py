"""Find names, such as labels and the texts of choices, where a text has them as whole words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from actshift.tasks.scorers.mention import Mention

_LEFT = r"(?<![\w−-])(?<!\w['’/])(?<!\d[.,])(?<!^\.)(?<!\s\.)"
_RIGHT = r"(?!\w|['’/^-]\w|[.,]\d|\s?%)"


def find_names(text: str, names: Iterable[tuple[str, str | None]]) -> list[Mention]:
    """Return where `text` has one of the (name, value) pairs, in order; of two that overlap, the longer.

    Case does not matter, nor whether spaces, hyphens or underscores part the words. A part of a word is no
    mention of it, nor a part of a number: `positively` is not `positive`, and `4.2` is not `2`.

    >>> names = [("entailment", "yes"), ("not entailment", "no")]
    >>> [mention.value for mention in find_names("Not_entailment, surely", names)]
    ['no']
    """
    lower = text.lower()
    found = [
        Mention(match.start(), match.end(), value)
        for name, value in names
        if name.strip(" .") and _first_word(name) in lower  # which is much quicker than to compile a pattern
        for match in re.finditer(f"{_LEFT}{_pattern(name)}{_RIGHT}", text, re.IGNORECASE)
    ]
    return without_parts(found)


def without_parts(mentions: Iterable[Mention]) -> list[Mention]:
    """Leave out the mentions that overlap a longer one, and sort the others by where they stand."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: m.start - m.end):
        length = mention.end - mention.start
        if all(m.end <= mention.start or mention.end <= m.start or m.end - m.start == length for m in kept):
            kept.append(mention)
    return sorted(kept)


def _words(name: str) -> list[str]:
    return re.split(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", name.strip().rstrip("."))


def _first_word(name: str) -> str:
    return _words(name)[0].split()[0].lower()


def _pattern(name: str) -> str:
    return r"[\s_-]+".join(r"\s+".join(map(re.escape, word.split())) for word in _words(name))
