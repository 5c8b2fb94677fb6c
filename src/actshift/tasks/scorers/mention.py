"""Find the answers that a text mentions, and decide which one is its final answer."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple


class Mention(NamedTuple):
    """An answer at `text[start:end]`. Its value is None if the text there is not exactly one answer."""

    start: int
    end: int
    value: str | None


_ANNOUNCEMENT = re.compile(
    r"#{4}|\\boxed\s*\{|"
    r"\b(?:answers?|(?:correct|right|best)\s+(?:option|choice|label))\b"
    r"(?:\s*\([^()\n]*\)|\s+(?:to|of|for)\b[^.:=\n]{0,80}?)?"
    r"\s*(?:\b(?:is|are|was|(?:will|would|should|must)\s+be)\b\s*[:=,]?|[:=])",
    re.IGNORECASE,
)
"""Text before a final answer: `####`, `\\boxed{`, `the answer is`, `Answer:`, `the correct option is`."""

FILLER = re.compile(
    r"(?:[\s*_\"'“”‘’`$(\[{]|\\[(\[]|\\text|"
    r"\b(?:the|options?|choice|letter|number|label|equal\s+to|therefore|thus|indeed|simply|just|exactly|"
    r"approximately|about)\b)*",
    re.IGNORECASE,
)
"""Text that may stand between an announcement and its answer."""

_NEGATION = re.compile(
    r"(?:\bnot|n['’]t|\brather\s+than|\binstead\s+of)\s+(?:(?:the|an?|options?|choice)\s+)?[\"'“‘(*]*$", re.IGNORECASE
)
NEGATION_REACH = 40  # characters before an answer in which its negation may start
ANSWER_REACH = 1000  # characters between an announcement and its answer, so that any text is read in linear time
JOIN_REACH = 100  # characters between an answer and another one that is joined to it

_JOIN = re.compile(r"[\W_]*(?:[,/&]|\b(?:or|and|nor|to)\b)[\W_]*", re.IGNORECASE)
_LEFT_EDGE = r"(?<![\w−-])(?<!\w['’/])(?<!\d[.,])(?<!^\.)(?<!\s\.)"
_RIGHT_EDGE = r"(?!\w|['’/^-]\w|[.,]\d|\s?%)"


def final_answer(text: str, mentions: Iterable[Mention]) -> str | None:
    """Return the announced answer of a text, or else the only one that it mentions without a negation, or None.

    >>> final_answer("Not x, but y.", [Mention(4, 5, "x"), Mention(11, 12, "y")])
    'y'
    """
    kept = drop_negated(text, mentions)
    final = announced(text, kept)
    if final is not None:
        return final.value
    values = {mention.value for mention in kept}
    return values.pop() if len(values) == 1 else None


def drop_negated(text: str, mentions: Iterable[Mention]) -> list[Mention]:
    """Drop the mentions that directly follow `not`, `n't`, `rather than` or `instead of`."""
    return [m for m in mentions if not _NEGATION.search(text[max(0, m.start - NEGATION_REACH) : m.start])]


def announced(text: str, mentions: Sequence[Mention], filler: re.Pattern[str] = FILLER) -> Mention | None:
    """Return the mention after the last announcement, or None if no announcement is followed by a mention.

    A mention that is joined to a different answer (`the answer is B or C`) has no value. An announcement without a
    mention directly after it (`the answer is not B`) is skipped. `mentions` are in the order of the text.
    """
    for mark in reversed(list(_ANNOUNCEMENT.finditer(text))):
        near = _starting_in(mentions, mark.end(), mark.end() + ANSWER_REACH)
        if near and (filled := filler.match(text, mark.end(), near[-1].start)):
            reached = (m for m in near if m.start <= filled.end() and filler.fullmatch(text, mark.end(), m.start))
            if first := next(reached, None):
                final = first if first.value is not None else next((m for m in reached if m.value is not None), first)
                after = _starting_in(mentions, final.end, final.end + JOIN_REACH)
                joined = [m for m in after if _JOIN.fullmatch(text, final.end, m.start)]
                return final if all(m.value == final.value for m in joined) else final._replace(value=None)
    return None


def _starting_in(mentions: Sequence[Mention], first: int, last: int) -> Sequence[Mention]:
    start = attrgetter("start")
    return mentions[bisect_left(mentions, first, key=start) : bisect_right(mentions, last, key=start)]


def find_names(text: str, names: Iterable[tuple[str, str | None]]) -> list[Mention]:
    """Return the mentions of (name, value) pairs in a text, in order. Of two that overlap, the longer one is kept.

    Letter case does not matter. Spaces, hyphens and underscores between words are equivalent. Part of a word or of a
    number does not count: `positively` is not `positive`, and `4.2` is not `2`.

    >>> names = [("entailment", "yes"), ("not entailment", "no")]
    >>> [mention.value for mention in find_names("Not_entailment, surely", names)]
    ['no']
    """
    lower = text.lower()
    mentions = [
        Mention(match.start(), match.end(), value)
        for name, value in names
        if name.strip(" .") and _words(name)[0].split()[0].lower() in lower  # much faster than compiling the pattern
        for match in re.finditer(f"{_LEFT_EDGE}{_pattern(name)}{_RIGHT_EDGE}", text, re.IGNORECASE)
    ]
    return drop_overlaps(mentions)


def drop_overlaps(mentions: Iterable[Mention]) -> list[Mention]:
    """Drop the mentions that overlap a longer one, and sort the others by position."""
    ordered = sorted(mentions, key=lambda m: m.start - m.end)
    kept, covered = list[Mention](), bytearray(max((m.end for m in ordered), default=0))
    for _, group in groupby(ordered, key=lambda m: m.start - m.end):
        free = [m for m in group if not any(covered[m.start : m.end])]  # two of the same length may overlap
        for mention in free:
            covered[mention.start : mention.end] = b"\1" * (mention.end - mention.start)
        kept += free
    return sorted(kept)


def _words(name: str) -> list[str]:
    return re.split(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", name.strip().rstrip("."))


def _pattern(name: str) -> str:
    return r"[\s_-]+".join(r"\s+".join(map(re.escape, word.split())) for word in _words(name))
