from __future__ import annotations

import torch

from actshift.analysis.equivalence.branch import best_input_shift


def test_conjugate_gradients_match_the_decomposition() -> None:
    weights = torch.randn(12, 4, dtype=torch.float64), torch.randn(4, 12, dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weights[1].T) @ weights[0].T

    x, shift = (torch.randn(5, 12, dtype=torch.float64) for _ in range(2))
    dense, iterative = (best_input_shift(function, x, shift, max_dense_width=width) for width in (12, 0))
    torch.testing.assert_close(iterative, dense)


def test_only_the_masked_tokens_are_shifted() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    shift, _ = best_input_shift(lambda x: 2 * x, x, torch.ones_like(x), torch.tensor([True, False, True]))
    torch.testing.assert_close(shift[:, 0], torch.tensor([0.5, 0, 0.5], dtype=torch.float64))
