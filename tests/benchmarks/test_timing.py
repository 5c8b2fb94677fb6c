"""Interleaved timing and its statistics."""

from __future__ import annotations

import pytest

from benchmarks.timing import interleaved, milliseconds, over, ratios, spread


class Clock:
    """A clock that advances only while a case runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def case(self, name: str, seconds: float):
        def run() -> None:
            self.ran.append(name)
            self.now += seconds

        return run


def test_rounds_rotate_the_order_and_warm_up_is_not_counted():
    clock = Clock()
    samples = interleaved({"a": clock.case("a", 1), "b": clock.case("b", 2)}, rounds=4, warmup=1, clock=clock)
    rounds = ["".join(clock.ran[place : place + 2]) for place in range(0, len(clock.ran), 2)]
    assert rounds == ["ba", "ab", "ba", "ab", "ba"]
    assert samples == {"a": [1, 1, 1, 1], "b": [2, 2, 2, 2]}


def test_ratios_are_computed_per_round():
    samples = {"base": [1.0, 10.0, 2.0], "case": [1.5, 15.0, 3.0]}  # the machine was slow in the second round
    assert over(samples, "case", "base") == (1.5, 1.5, 1.5)
    (figure,) = ratios(samples, "base", "over the base", "here")
    assert (figure.name, figure.case, figure.where, figure.value) == ("over the base", "case", "here", 1.5)


def test_a_spread_is_the_median_and_the_quartiles():
    assert spread([5, 1, 2, 4, 3]) == (3, 2, 4)
    assert spread([7]) == (7, 7, 7)


def test_times_are_converted_to_milliseconds():
    (figure,) = milliseconds({"case": [0.001, 0.002, 0.003]}, "step", "here")
    assert (figure.value, figure.low, figure.high) == pytest.approx((2, 1.5, 2.5)) and figure.unit == "ms"
