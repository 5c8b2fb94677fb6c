"""One of several choices, given by its letter, its number or its text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from string import ascii_uppercase

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.scorers.base import Row, Scorer, gold_of
from actshift.tasks.scorers.mention import Mention, find_names, settle, without_parts

WORDS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}

_BEFORE_A_NOUN = re.compile(r"no\s+(?!(?:because|since|as|for|it|that|this|they|he|she|and|or|but)\b)\w", re.IGNORECASE)
"""`no one` and `no other reason` answer nothing."""


def _extract_boolean(prediction: str, row: Row) -> str | None:
    found = find_names(prediction, WORDS.items())
    return settle(prediction, [mention for mention in found if not _BEFORE_A_NOUN.match(prediction, mention.start)])


def _boolean_correct(prediction: str, row: Row) -> bool:
    gold = _extract_boolean(gold_of(row), row)
    if gold is None:
        raise ActshiftError(f"The scorer boolean needs an answer of yes, no, true or false, got {gold_of(row)!r}.")
    return _extract_boolean(prediction, row) == gold


BOOLEAN = Scorer("boolean", _boolean_correct, _extract_boolean)


UNLISTED = 10
"""How many choices there are taken to be where a row does not list them."""

_CUES = (
    "is are was be it's it’s option options choice choices choose chose pick picked select selected answer answers "
    "letter number say with so thus hence therefore but rather both either neither"
)
_CONTINUATIONS = "because since as is was are would and or but for so which that with due given not"
_OPENED = (
    rf"(?:^|[.,;!?](?=[\s*\"'])|[:=#\n]|\\(?:boxed|text)\s*\{{|\b(?:{_CUES.replace(' ', '|')})\b)"
    r"(?:[\s*_\"'“‘•(\[{]|-\s)*"
)
_CLOSED = (
    r"(?=\s*[)\]}]|[*_\"'”’]*(?:\s*$|\s*[.,:;!?](?!\w)|[^\S\n]*\n|\s*[—–]|\s+-\s|"
    rf"\s+(?:{_CONTINUATIONS.replace(' ', '|')})\b))"
)
"""What a letter in a sentence stands between where it is an answer: `is B because`, not `plan B works`."""
_BETWEEN = r"\s*(?:,\s*(?:and|or)?|and|or|nor|/|&)\s*"


def _extract_choice(prediction: str, row: Row) -> str | None:
    return _read(prediction, _labels(row), _texts(row))


def _choice_correct(prediction: str, row: Row) -> bool:
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
    whole = [label for label, choice in zip(labels, texts, strict=False) if choice == text.strip()]
    if len(whole) == 1 and not by_label:
        return whole[0]
    taken = {(mention.start, mention.end) for mention in by_label}
    by_text = [mention for mention in find_names(text, _named(labels, texts)) if mention[:2] not in taken]
    return settle(text, [mention for mention in without_parts([*by_label, *by_text]) if mention.value])


def _named(labels: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str | None]]:
    """Pair each text with its label, or with None where another choice reads the same."""
    times = Counter(text.casefold() for text in texts)
    return [(text, label if times[text.casefold()] == 1 else None) for label, text in zip(labels, texts, strict=False)]


def _find_labels(text: str, labels: Sequence[str]) -> list[Mention]:
    one, *runs = _patterns(tuple(labels))
    spans = [match.span("run") for run in runs for match in run.finditer(text)]
    found = {match.span(): match[0].upper() for span in spans for match in one.finditer(text, *span)}
    return [Mention(start, end, label) for (start, end), label in found.items()]


@cache
def _patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Return what one label looks like, then labels as answers: in a sentence (`A or B`), and in brackets."""
    one = rf"(?:{'|'.join(labels)})"
    sentence = rf"{_OPENED}(?P<run>{one}(?:{_BETWEEN}{one})*){_CLOSED}"
    brackets = rf"(?<!\w)[(\[](?P<run>{one})[)\]]"
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in (rf"(?<!\w){one}(?!\w)", sentence, brackets))


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


CHOICE = Scorer("choice", _choice_correct, _extract_choice)


def label_scorer(labels: Sequence[str] = ()) -> Scorer:
    """Return the scorer of rows whose answer is one of `labels`, or of the row's `choices` where it has some.

    A prediction gives the label that it names as a whole word (in any case), if it names no other or marks it as
    its answer. A word that only begins like a label is none: `entail` and `entails` are not `entailment`.

    Raises ActshiftError, when it scores a row that has no labels or whose answer is none of them.

    >>> scorer = label_scorer(["positive", "negative"])
    >>> [scorer(text, {"answer": "positive"}) for text in ("Positive.", "positively", "not positive")]
    [True, False, False]
    """
    return Scorer("label", partial(_label_correct, labels=tuple(labels)), partial(_extract_label, labels=tuple(labels)))


def _extract_label(prediction: str, row: Row, labels: tuple[str, ...]) -> str | None:
    names = _names(row, labels)
    if prediction.strip() in names:
        return prediction.strip()
    return settle(prediction, find_names(prediction, zip(names, names, strict=True)))


def _label_correct(prediction: str, row: Row, labels: tuple[str, ...]) -> bool:
    gold, names = gold_of(row), _names(row, labels)
    if gold not in names:
        raise ActshiftError(
            f"The answer {gold!r} of a row is none of its labels {', '.join(names)}{did_you_mean(gold, names)}."
        )
    return _extract_label(prediction, row, labels) == gold


def _names(row: Row, labels: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(row.get("choices") or labels)
    if not names:
        raise ActshiftError("The scorer label needs the labels: in the row's column choices, or by label_scorer.")
    return names


LABEL = label_scorer()
