"""Answers where a text names them, and which of several it settles on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Mention(NamedTuple):
    """An answer that `text[start:end]` names; its value is None where it cannot be read as one answer."""

    start: int
    end: int
    value: str | None


_MARK = re.compile(
    r"#{4}|\\boxed\s*\{|"
    r"\b(?:answers?|(?:correct|right|best)\s+(?:option|choice|label))\b"
    r"(?:\s*\([^()\n]*\)|\s+(?:to|of|for)\b[^.:=\n]{0,80}?)?"
    r"\s*(?:\b(?:is|are|was|(?:will|would|should|must)\s+be)\b\s*[:=,]?|[:=])",
    re.IGNORECASE,
)
"""What announces a final answer: `####`, `\\boxed{`, `the answer is`, `Answer:`, `the correct option is`."""

FILLER = re.compile(
    r"(?:[\s*_\"'“”‘’`$(\[{]|\\[(\[]|\\text|"
    r"\b(?:the|options?|choice|letter|number|label|equal\s+to|therefore|thus|indeed|simply|just|exactly|"
    r"approximately|about)\b)*",
    re.IGNORECASE,
)
"""What may stand between the mark and the answer."""

_NEGATION = re.compile(
    r"(?:\bnot|n['’]t|\brather\s+than|\binstead\s+of)\s+(?:(?:the|an?|options?|choice)\s+)?[\"'“‘(*]*$", re.IGNORECASE
)
NEGATION_REACH = 40
"""How many characters before an answer a denial of it can begin."""

_JOIN = re.compile(r"[\W_]*(?:[,/&]|\b(?:or|and|nor|to)\b)[\W_]*", re.IGNORECASE)


def asserted(text: str, mentions: Iterable[Mention]) -> list[Mention]:
    """Leave out the mentions that the text denies: those right after `not`, `n't`, `rather than`, `instead of`."""
    return [m for m in mentions if not _NEGATION.search(text[max(0, m.start - NEGATION_REACH) : m.start])]


def marked(text: str, mentions: Sequence[Mention], filler: re.Pattern[str] = FILLER) -> Mention | None:
    """Return the mention that the last mark announces, or None where no mark is followed by one.

    A mention joined to another answer (`the answer is B or C`) has no value. Marks that nothing follows at once
    (`the answer is not B`) are passed over.
    """
    for mark in reversed(list(_MARK.finditer(text))):
        after = [m for m in mentions if m.start >= mark.end() and filler.fullmatch(text, mark.end(), m.start)]
        if after:
            final = next((mention for mention in after if mention.value is not None), after[0])
            others = [m for m in mentions if m.start >= final.end and _JOIN.fullmatch(text, final.end, m.start)]
            return final if all(m.value == final.value for m in others) else final._replace(value=None)
    return None


def settle(text: str, mentions: Iterable[Mention]) -> str | None:
    """Return the one answer of a text: the marked one, or else the only one that it names and does not deny.

    >>> settle("Not x, but y.", [Mention(4, 5, "x"), Mention(11, 12, "y")])
    'y'
    """
    kept = asserted(text, mentions)
    final = marked(text, kept)
    if final is not None:
        return final.value
    values = {mention.value for mention in kept}
    return values.pop() if len(values) == 1 else None


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
