from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.tasks.source import SplitSlice, split_by_hash


@settings(max_examples=30)
@given(st.text(max_size=30))
def test_a_prompt_is_on_one_side_of_every_cut(prompt: str) -> None:
    parts = split_by_hash("train", train=0.8, validation=0.1, test=0.1).values()
    assert sum(part.takes(prompt) for part in parts) == 1


def test_shares_are_met_and_the_sides_are_those_of_every_machine() -> None:
    prompts = [f"question {number}" for number in range(4000)]
    parts = split_by_hash("train", train=0.8, validation=0.1, test=0.1)
    counts = {name: sum(map(part.takes, prompts)) for name, part in parts.items()}
    assert counts == {"train": 3190, "validation": 396, "test": 414}  # of a hash: no chance, no version, no platform


def test_a_whole_split_takes_all() -> None:
    assert SplitSlice("train").takes("anything")
