"""Splits by hash are disjoint, have their shares, and are the same on every machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.tasks.source import SplitSlice, split_by_hash


@settings(max_examples=30)
@given(st.text(max_size=30))
def test_a_prompt_is_in_exactly_one_slice(prompt: str) -> None:
    parts = split_by_hash("train", train=0.8, validation=0.1, test=0.1).values()
    assert sum(part.contains(prompt) for part in parts) == 1


def test_slices_have_their_shares_and_are_the_same_on_every_machine() -> None:
    prompts = [f"question {number}" for number in range(4000)]
    parts = split_by_hash("train", train=0.8, validation=0.1, test=0.1)
    counts = {name: sum(map(part.contains, prompts)) for name, part in parts.items()}
    assert counts == {"train": 3190, "validation": 396, "test": 414}  # fixed by the hash


def test_a_whole_split_contains_every_prompt() -> None:
    assert SplitSlice("train").contains("anything")
