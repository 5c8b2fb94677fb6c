"""Positions, and the mask of steered tokens against a computation row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError
from actshift.sites.positions import Positions, steered_tokens, token_index

POSITIONS = st.one_of(
    st.sampled_from([Positions.all(), Positions.prompt(), Positions.generated(), Positions.last_token()]),
    st.builds(Positions.ends, first=st.integers(0, 4), last=st.integers(1, 4)),
    st.builds(Positions.ends, first=st.integers(1, 4)),
)


def steered_by_hand(positions: Positions, prompt: int, generated: int) -> list[bool]:
    """Return for each token of a row without padding whether it is steered."""
    names = [f"p{i}" for i in range(prompt)] + [f"g{i}" for i in range(generated)]
    if positions == Positions.all():
        chosen = set(names)
    elif positions == Positions.prompt():
        chosen = set(names[:prompt])
    elif positions == Positions.generated():
        chosen = set(names[prompt:])
    else:
        chosen = set(names[:prompt][: positions.first])
        chosen |= set(names[:prompt][-positions.last :] if positions.last else [])
    return [name in chosen for name in names]


@st.composite
def batches(draw):
    """Draw rows of (prompt length, generated length), and the side of the padding of each part."""
    rows = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=4))
    sides = [(draw(st.booleans()), draw(st.booleans())) for _ in rows]
    return rows, sides


@given(POSITIONS, batches(), st.data())
def test_the_mask_of_a_padded_batch_equals_the_mask_of_each_row(positions, batch, data):
    rows, sides = batch
    width, more = max(p for p, _ in rows), max(g for _, g in rows)
    attended, expected = [], []
    for (prompt, generated), (left, right) in zip(rows, sides, strict=True):
        row = steered_by_hand(positions, prompt, generated)
        parts = []
        for tokens, room, first in ((row[:prompt], width, left), (row[prompt:], more, right)):
            padding: list[bool | None] = [None] * (room - len(tokens))
            parts += [*padding, *tokens] if first else [*tokens, *padding]
        attended.append([token is not None for token in parts])
        expected.append([token if token is not None else positions == Positions.all() for token in parts])
    index = token_index(torch.tensor(attended, dtype=torch.bool).reshape(len(rows), -1))
    length = torch.tensor([[prompt] for prompt, _ in rows])
    mask = steered_tokens(positions, index, length)
    assert mask.tolist() == expected

    start = data.draw(st.integers(0, width + more))  # a slice of the row, as in a decoding step
    end = data.draw(st.integers(start, width + more))
    assert torch.equal(steered_tokens(positions, index[:, start:end], length), mask[:, start:end])


@given(POSITIONS)
def test_dict_round_trip(positions):
    assert Positions.from_dict(positions.to_dict()) == positions


def test_positions_as_words():
    written = [str(p) for p in (Positions(), Positions.last_token(), Positions.ends(7, 7), Positions.ends(first=2))]
    assert written == ["all tokens", "last prompt token", "first 7 and last 7 prompt tokens", "first 2 prompt tokens"]
    assert Positions.prompt().to_dict() == {"where": "prompt"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Positions("promt"), "did you mean 'prompt'"),
        (lambda: Positions.ends(), "give first or last"),
        (lambda: Positions.ends(first=-1), "from 0 up, got -1"),
        (lambda: Positions.ends(last=True), "got True"),
        (lambda: Positions("prompt", first=2), "which only 'ends' takes"),
        (lambda: Positions.from_dict("f7+l7"), "'f7\\+l7'"),
        (lambda: Positions.from_dict({"where": "ends", "frist": 1}), "did you mean 'first'"),
    ],
)
def test_invalid_positions_are_errors_with_a_fix(make, message):
    with pytest.raises(ActshiftError, match=message):
        make()
