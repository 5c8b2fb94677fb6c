"""Scorers for answers from a fixed set: yes or no, one label, or one of a row's choices."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from string import ascii_uppercase

from actshift.data.rows import Row
from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.scorers.base import Scorer, answer_scorer, extracted_gold, gold_of
from actshift.tasks.scorers.mention import Mention, drop_overlaps, final_answer, find_names

# Yes or no

WORDS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_BEFORE_A_NOUN = re.compile(r"no\s+(?!(?:because|since|as|for|it|that|this|they|he|she|and|or|but)\b)\w", re.IGNORECASE)
"""A `no` that is not an answer, as in `no one` and `no other reason`."""


def _extract_boolean(prediction: str, row: Row) -> str | None:
    mentions = find_names(prediction, WORDS.items())
    return final_answer(prediction, [m for m in mentions if not _BEFORE_A_NOUN.match(prediction, m.start)])


_boolean_gold = partial(extracted_gold, "boolean", "of yes, no, true or false", _extract_boolean)
BOOLEAN = answer_scorer("boolean", _extract_boolean, _boolean_gold)

# One label


def label_scorer(labels: Sequence[str] = ()) -> Scorer:
    """Return the scorer of rows whose answer is one of `labels`, or one of the row's `choices` if it has some.

    A prediction has the label that it names as a whole word (in any case), if it names no other label or marks this
    one as its answer. Part of a word does not count: `entail` and `entails` are not `entailment`. The scorer raises
    `ActshiftError` for a row without labels, or whose answer is not one of its labels.

    >>> scorer = label_scorer(["positive", "negative"])
    >>> [scorer(text, {"answer": "positive"}) for text in ("Positive.", "positively", "not positive")]
    [True, False, False]
    """
    labels = tuple(labels)
    return answer_scorer("label", partial(_extract_label, labels=labels), partial(_label_gold, labels=labels))


def _extract_label(prediction: str, row: Row, labels: tuple[str, ...]) -> str | None:
    names = _label_names(row, labels)
    if prediction.strip() in names:
        return prediction.strip()
    return final_answer(prediction, find_names(prediction, zip(names, names, strict=True)))


def _label_gold(row: Row, labels: tuple[str, ...]) -> str:
    gold, names = gold_of(row), _label_names(row, labels)
    if gold not in names:
        hint = did_you_mean(gold, names)
        raise ActshiftError(f"The answer {gold!r} of a row is none of its labels {', '.join(names)}{hint}.")
    return gold


def _label_names(row: Row, labels: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(map(str, row.get("choices") or labels))
    if not names:
        raise ActshiftError("The scorer label needs labels; add the column choices to the rows, or use label_scorer.")
    return names


LABEL = label_scorer()


# One of a row's choices, named by its key (a letter or a number) or by its text

MAX_UNLISTED = 10  # possible keys if a row does not list its choices
_CUES = (
    "is are was be it's it’s option options choice choices choose chose pick picked select selected answer answers "
    "letter number say with so thus hence therefore but rather both either neither"
)
_CONTINUATIONS = "because since as is was are would and or but for so which that with due given not"
_BEFORE_KEY = (
    rf"(?:^|[.,;!?](?=[\s*\"'])|[:=#\n]|\\(?:boxed|text)\s*\{{|\b(?:{_CUES.replace(' ', '|')})\b)"
    r"(?:[\s*_\"'“‘•(\[{]|-\s){0,40}"
)
_AFTER_KEY = (
    r"(?=\s*[)\]}]|[*_\"'”’]*(?:\s*$|\s*[.,:;!?](?!\w)|[^\S\n]*\n|\s*[—–]|\s+-\s|"
    rf"\s+(?:{_CONTINUATIONS.replace(' ', '|')})\b))"
)
"""The surroundings of a key in a sentence that make it an answer: `is B because`, but not `plan B works`."""
_BETWEEN_KEYS = r"\s*(?:,\s*(?:and|or)?|and|or|nor|/|&)\s*"


def _extract_choice(prediction: str, row: Row) -> str | None:
    return _find_choice(prediction, _keys(row), _texts(row))


def _choice_gold(row: Row) -> str:
    keys, answer = _keys(row), gold_of(row)
    gold = answer.upper() if answer.upper() in keys else _find_choice(answer, keys, _texts(row))
    if gold is None:
        allowed = f"one of {', '.join(keys)}, or the text of one choice"
        raise ActshiftError(f"The scorer choice needs an answer that is {allowed}, got {answer!r}.")
    return gold


def _find_choice(text: str, keys: Sequence[str], choices: Sequence[str]) -> str | None:
    """Return the key of the one choice that a text names. A key takes precedence over a choice with the same text."""
    by_key = _find_keys(text, keys)
    equal = [key for key, choice in zip(keys, choices, strict=False) if choice == text.strip()]
    if len(equal) == 1 and not by_key:
        return equal[0]
    counts = Counter(choice.casefold() for choice in choices)  # two choices with one text name no key
    names = [(name, key if counts[name.casefold()] == 1 else None) for key, name in zip(keys, choices, strict=False)]
    spans = {(mention.start, mention.end) for mention in by_key}
    by_text = [mention for mention in find_names(text, names) if mention[:2] not in spans]
    return final_answer(text, [mention for mention in drop_overlaps([*by_key, *by_text]) if mention.value])


def _find_keys(text: str, keys: Sequence[str]) -> list[Mention]:
    single, *runs = _key_patterns(tuple(keys))
    spans = [match.span("run") for run in runs for match in run.finditer(text)]
    keys_by_span = {match.span(): match[0].upper() for span in spans for match in single.finditer(text, *span)}
    return [Mention(start, end, key) for (start, end), key in keys_by_span.items()]


@cache
def _key_patterns(keys: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of a single key, of keys as answers in a sentence (`A or B`), and of a key in brackets."""
    key = rf"(?:{'|'.join(keys)})"
    sentence = rf"{_BEFORE_KEY}(?P<run>{key}(?:{_BETWEEN_KEYS}{key}){{0,40}}){_AFTER_KEY}"
    brackets = rf"(?<!\w)[(\[](?P<run>{key})[)\]]"
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in (rf"(?<!\w){key}(?!\w)", sentence, brackets))


def _keys(row: Row) -> tuple[str, ...]:
    """Return letters, or numbers from 1 if the row's answer is one. Never both: a choice's text may be a number."""
    answer, choices = gold_of(row), _texts(row)
    count = len(choices) or MAX_UNLISTED
    numbers = tuple(str(number) for number in range(1, count + 1))
    if answer not in numbers:
        return tuple(ascii_uppercase[:count])
    if answer in choices and choices.index(answer) != numbers.index(answer):
        raise ActshiftError(
            f"The answer {answer!r} is the number of one choice and the text of another; use letters as answers."
        )
    return numbers


def _texts(row: Row) -> tuple[str, ...]:
    return tuple(str(choice).strip() for choice in row.get("choices") or ())


CHOICE = answer_scorer("choice", _extract_choice, _choice_gold)
