"""The number of digits in figures."""

from __future__ import annotations

import pytest

from benchmarks.figure import Figure


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "text"),
    [
        (1.02345, 1.0, 1.05, "×", "1.023 (1.000 to 1.050)"),
        (1.0, None, None, "×", "1.000"),
        (12.345, None, None, "ms", "12.35"),
        (123.45, 120.0, 130.0, "ms", "123.5 (120.0 to 130.0)"),
        (12345.6, None, None, "tokens/s", "12,346"),
        (60.0, 58.0, 62.0, "steps", "60 (58 to 62)"),
        (60.0, 57.5, 62.0, "steps", "60.00 (57.50 to 62.00)"),
    ],
)
def test_a_figure_is_shown_with_its_significant_digits(value, low, high, unit, text):
    assert str(Figure("name", "case", "where", value, low, high, unit)) == text
