"""One of several choices, given by its letter, its number or its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from actshift.errors import ActshiftError
from actshift.tasks.scorers.mention import Mention, settle
from actshift.tasks.scorers.names import find_names, without_parts
from actshift.tasks.scorers.scorer import Row, Scorer, gold_of

UNLISTED = 10
"""How many choices there are taken to be where a row does not list them."""

_OPENED = (  # what a letter in a sentence must follow, to be an answer and not a word
    r"(?:^|[.,;!?](?=[\s*\"'])|[:=#\n]|\\(?:boxed|text)\s*\{|\b(?:is|are|was|be|it['’]s|options?|choices?|choose|chose|"
    r"picked|pick|select|selected|answers?|letter|number|say|with|so|thus|hence|therefore|but|both|either|neither)\b)"
    r"(?:[\s*_\"'“‘•(\[{]|-\s)*"
)
_CLOSED = (  # what it must be followed by
    r"(?=\s*[)\]}]|[*_\"'”’]*(?:\s*$|\s*[.,:;!?\n](?!\w)|\s*[—–]|\s+-\s|"
    r"\s+(?:because|since|as|is|was|are|would|and|or|but|for|so|which|that|with|due|given|not)\b))"
)
_BETWEEN = r"\s*(?:,\s*(?:and|or)?|and|or|nor|/|&)\s*"


def _extract(prediction: str, row: Row) -> str | None:
    return _read(prediction, _labels(row), _texts(row))


def _correct(prediction: str, row: Row) -> bool:
    labels, texts, answer = _labels(row), _texts(row), gold_of(row)
    gold = answer.upper() if answer.upper() in labels else _read(answer, labels, texts)
    if gold is None:
        raise ActshiftError(
            f"The scorer choice needs an answer that is one of {', '.join(labels)}, or the text of one choice, "
            f"got {answer!r}."
        )
    return _read(prediction, labels, texts) == gold


def _read(text: str, labels: Sequence[str], texts: Sequence[str]) -> str | None:
    """Return the label of the one choice that a text gives; a label counts before a text that reads the same."""
    by_label = _find_labels(text, labels)
    taken = {(mention.start, mention.end) for mention in by_label}
    by_text = [m for m in find_names(text, zip(texts, labels, strict=False)) if (m.start, m.end) not in taken]
    whole = [label for label, choice in zip(labels, texts, strict=False) if choice.strip() == text.strip()]
    if len(whole) == 1 and not by_label:
        return whole[0]
    return settle(text, without_parts([*by_label, *by_text]))


def _find_labels(text: str, labels: Sequence[str]) -> list[Mention]:
    one = rf"(?:{'|'.join(labels)})"
    run = rf"{_OPENED}(?P<run>{one}(?:{_BETWEEN}{one})*){_CLOSED}"
    spans = [match.span("run") for match in re.finditer(run, text, re.IGNORECASE)]
    spans += [match.span("run") for match in re.finditer(rf"(?<!\w)[(\[](?P<run>{one})[)\]]", text, re.IGNORECASE)]
    alone = re.compile(rf"(?<!\w){one}(?!\w)", re.IGNORECASE)
    found = {match.span(): match[0].upper() for span in spans for match in alone.finditer(text, *span)}
    return [Mention(start, end, label) for (start, end), label in found.items()]


def _labels(row: Row) -> tuple[str, ...]:
    """Letters, or numbers from 1 where the row's answer is one; never both, since a number may be a choice's text."""
    answer, texts = gold_of(row), _texts(row)
    count = len(texts) or UNLISTED
    numbers = tuple(str(number) for number in range(1, count + 1))
    if answer not in numbers:
        return tuple(ascii_uppercase[:count])
    if answer in texts and texts.index(answer) != numbers.index(answer):
        raise ActshiftError(
            f"The answer {answer!r} is the number of one choice and the text of another; give letters as answers."
        )
    return numbers


def _texts(row: Row) -> tuple[str, ...]:
    return tuple(str(choice).strip() for choice in row.get("choices") or ())


CHOICE = Scorer("choice", _correct, _extract)
