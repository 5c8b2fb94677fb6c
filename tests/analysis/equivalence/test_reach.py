from __future__ import annotations

import torch

from actshift.analysis.equivalence.branch import reach


def test_conjugate_gradients_find_what_the_decomposition_finds() -> None:
    weights = torch.randn(12, 4, dtype=torch.float64), torch.randn(4, 12, dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weights[1].T) @ weights[0].T

    x, shift = (torch.randn(5, 12, dtype=torch.float64) for _ in range(2))
    formed, solved = (reach(function, x, shift, formed=width) for width in (12, 0))
    torch.testing.assert_close(solved.copied, formed.copied)
    torch.testing.assert_close(solved.moved, formed.moved)


def test_only_the_chosen_tokens_are_moved() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    found = reach(lambda x: 2 * x, x, torch.ones_like(x), torch.tensor([True, False, True]))
    torch.testing.assert_close(found.moved[:, 0], torch.tensor([0.5, 0, 0.5], dtype=torch.float64))
