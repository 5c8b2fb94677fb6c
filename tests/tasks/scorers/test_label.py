"""The scorer label on difficult strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer, label_scorer

label = get_scorer("label")

MNLI = ["entailment", "neutral", "contradiction"]
SST2 = ["negative", "positive"]
RTE = ["entailment", "not_entailment"]


@pytest.mark.parametrize(
    ("prediction", "answer", "labels"),
    [
        ("entailment", "entailment", MNLI),
        (" Entailment.\n", "entailment", MNLI),
        ("NEUTRAL", "neutral", MNLI),
        ("**neutral**", "neutral", MNLI),
        ("'neutral'", "neutral", MNLI),
        ("It is a contradiction, I think.", "contradiction", MNLI),
        ("The relation is neutral because it says nothing of the kind.", "neutral", MNLI),
        ("Neither entailment nor contradiction. The answer is neutral.", "neutral", MNLI),
        ("It is not entailment but contradiction.", "contradiction", MNLI),
        ("Contradiction rather than entailment", "contradiction", MNLI),
        ("The correct label is neutral, not entailment", "neutral", MNLI),
        ("Answer: neutral\nentailment would need more", "neutral", MNLI),
        ("#### neutral", "neutral", MNLI),
        (r"\boxed{neutral}", "neutral", MNLI),
        ("positive", "positive", SST2),
        ("This is a positive review.", "positive", SST2),
        ("The answer is negative; the word 'positive' is irony.", "negative", SST2),
        ("not negative but positive", "positive", SST2),
        ("isn't positive: negative", "negative", SST2),
        ("positive, positive, positive", "positive", SST2),
        ("not_entailment", "not_entailment", RTE),
        ("not entailment", "not_entailment", RTE),
        ("Not-entailment.", "not_entailment", RTE),
        ("entailment", "entailment", RTE),
        ("C++", "c++", ["c", "c++"]),
        ("c", "c", ["c", "c++"]),
        ("US", "US", ["US", "us"]),
    ],
)
def test_a_prediction_with_the_gold_label_is_right(prediction: str, answer: str, labels: list[str]) -> None:
    assert label(prediction, {"answer": answer, "choices": labels})
    assert label_scorer(labels)(prediction, {"answer": answer})


@pytest.mark.parametrize(
    ("prediction", "answer", "labels"),
    [
        ("", "neutral", MNLI),
        ("\n", "neutral", MNLI),
        ("entail", "entailment", MNLI),
        ("entails", "entailment", MNLI),
        ("entailments", "entailment", MNLI),
        ("The premise entails it", "entailment", MNLI),
        ("contradict", "contradiction", MNLI),
        ("neutrality", "neutral", MNLI),
        ("neutral", "entailment", MNLI),
        ("n", "neutral", MNLI),
        ("1", "neutral", MNLI),
        ("entailment or neutral", "neutral", MNLI),
        ("entailment, neutral", "entailment", MNLI),
        ("entailment/neutral", "neutral", MNLI),
        ("entailment neutral contradiction", "neutral", MNLI),
        ("Neither entailment nor contradiction", "neutral", MNLI),
        ("The answer is entailment or neutral", "entailment", MNLI),
        ("not neutral", "neutral", MNLI),
        ("The answer is not neutral", "neutral", MNLI),
        ("not entailment", "entailment", RTE),
        ("not_entailment", "entailment", RTE),
        ("not entailment", "entailment", MNLI),
        ("positively", "positive", SST2),
        ("non-positive", "positive", SST2),
        ("positive-ish", "positive", SST2),
        ("It isn't positive", "positive", SST2),
        ("pos", "positive", SST2),
        ("good", "positive", SST2),
        ("positive and negative", "positive", SST2),
        ("c+", "c++", ["c", "c++"]),
    ],
)
def test_a_prediction_with_another_label_is_wrong(prediction: str, answer: str, labels: list[str]) -> None:
    assert not label(prediction, {"answer": answer, "choices": labels})


def test_a_gold_answer_outside_the_labels_raises() -> None:
    with pytest.raises(ActshiftError, match=r"'neutrl' of a row is none of its labels.*did you mean 'neutral'"):
        label("neutral", {"answer": "neutrl", "choices": MNLI})


def test_a_row_without_labels_raises() -> None:
    with pytest.raises(ActshiftError, match="add the column choices to the rows, or use label_scorer"):
        label("neutral", {"answer": "neutral"})


@given(labels=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, unique=True))
def test_every_label_scores_only_for_itself(labels: list[str]) -> None:
    for name in labels:
        assert [gold for gold in labels if label(f" {name}\n", {"answer": gold, "choices": labels})] == [name]
