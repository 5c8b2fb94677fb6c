"""LoReFT, NoReFT and DiReFT against plain tensor code, and the orthonormal rows of LoReFT."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.adapters import DiReFT, LoReFT, NoReFT
from actshift.adapters.reft import _halley_iteration, nearest_orthonormal
from actshift.errors import ActshiftError
from tests.adapters.parity import check_count, check_no_op, check_parity

FAMILY = (LoReFT, NoReFT, DiReFT)
SHAPES = dict(width=st.integers(2, 12), rank=st.integers(1, 6), seed=st.integers(0, 2**16))


def _times(matrix, vectors):
    return torch.einsum("rd,bsd->bsr", matrix, vectors)


def _difference(x, t):
    """Return Rᵀ(Wx + b - Rx). In NoReFT, R and W are called W₂ and W₁."""
    code = _times(t["read"], x) + t["bias"] - _times(t["write"], x)
    return torch.einsum("rd,bsr->bsd", t["write"], code)


def _direct(x, t):
    return torch.einsum("rd,bsr->bsd", t["write"], _times(t["read"], x) + t["bias"])


FORMULAS = {LoReFT: _difference, NoReFT: _difference, DiReFT: _direct}


def _deviation(module):
    """Return the deviation of R from orthonormal rows: the largest entry of |R Rᵀ - 1|."""
    rows = module.write.detach().double()
    return (rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)).abs().max().item()


@given(kind=st.sampled_from(FAMILY), **SHAPES)
def test_reft_matches_its_formula(kind, width, rank, seed):
    check_parity(kind(min(rank, width)).build(width), FORMULAS[kind], width, seed)


@given(kind=st.sampled_from(FAMILY), width=st.integers(1, 64), rank=st.integers(1, 16))
def test_reft_has_2dr_plus_r_parameters(kind, width, rank):
    rank = min(rank, width)
    assert check_count(kind(rank), width) == 2 * width * rank + rank


@pytest.mark.parametrize("kind", FAMILY)
def test_a_fresh_adapter_is_a_no_op_with_nonzero_gradients(kind):
    check_no_op(kind(4), 16)
    module = kind(4).build(16)
    module(torch.randn(2, 3, 16)).sum().backward()
    assert any(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    assert module.read.data_ptr() != module.write.data_ptr()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_rows_stay_orthonormal_through_many_large_steps(optimizer):
    module = LoReFT(rank=6).build(24)
    assert _deviation(module) < 1e-5
    stepper = optimizer(module.parameters(), lr=0.1)
    x, target = torch.randn(32, 24), torch.randn(32, 24)
    start = module.write.detach().clone()
    for _ in range(100):
        (module(x) - target).square().mean().backward()
        stepper.step()
        stepper.zero_grad()
        module.after_step()
        assert _deviation(module) < 1e-5
    assert (module.write - start).abs().max() > 0.05
    assert module.bfloat16().after_step() is None and _deviation(module) < 1e-2


@given(**SHAPES, scales=st.lists(st.floats(-12, 12), min_size=6, max_size=6))
def test_badly_scaled_rows_are_restored(width, rank, seed, scales):
    rank = min(rank, width)
    module = LoReFT(rank).build(width)
    rows = torch.randn(rank, width, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        module.write.copy_(rows * 10 ** torch.tensor(scales[:rank])[:, None])
    module.after_step()
    assert _deviation(module) < 1e-5


@pytest.mark.parametrize("spoil", ["zero row", "equal rows", "nearly equal rows", "all zero"])
def test_dependent_rows_are_replaced_and_the_others_kept(spoil):
    rows = torch.linalg.qr(torch.randn(16, 4)).Q.T.contiguous()
    if spoil == "zero row":
        rows[3] = 0
    elif spoil == "all zero":
        rows[:] = 0
    else:
        rows[3] = rows[2] * (1 + (1e-7 if spoil.startswith("nearly") else 0))
    module = LoReFT(4).build(16)
    with torch.no_grad():
        module.write.copy_(rows)
    module.after_step()
    assert _deviation(module) < 1e-5
    if spoil != "all zero":
        torch.testing.assert_close(module.write[:2], rows[:2], atol=1e-6, rtol=0)


@given(**SHAPES)
def test_the_result_is_the_nearest_orthonormal_matrix(width, rank, seed):
    draw = torch.Generator().manual_seed(seed)
    rank = min(rank, width)
    matrix = torch.randn(rank, width, generator=draw, dtype=torch.float64)
    nearest = nearest_orthonormal(matrix)
    distance = torch.linalg.norm(matrix - nearest)
    for step in (1e-3, 0.1, 1.0):
        rival = nearest + step * torch.randn(rank, width, generator=draw, dtype=torch.float64)
        rival = torch.linalg.qr(rival.T).Q.T
        rival = rival * torch.sign((rival * nearest).sum(-1, keepdim=True))  # QR does not determine the signs
        assert torch.linalg.norm(matrix - rival) >= distance - 1e-12
    torch.testing.assert_close(nearest_orthonormal(nearest), nearest, atol=1e-7, rtol=0)


@given(**SHAPES, scale=st.sampled_from([1e-6, 1.0, 1e6]), spread=st.integers(0, 4))
def test_the_iteration_for_gpus_equals_the_polar_factor(width, rank, seed, scale, spread):
    draw = torch.Generator().manual_seed(seed)
    rank = min(rank, width)
    left, right = (nearest_orthonormal(torch.randn(rank, size, generator=draw)) for size in (rank, width))
    matrix = scale * left @ torch.diag(torch.logspace(0, -spread, rank, dtype=torch.float64)) @ right
    torch.testing.assert_close(_halley_iteration(matrix), left @ right, atol=1e-7, rtol=0)


@pytest.mark.parametrize("last", [0.0, 1.0, 1 + 1e-7, 1 + 1e-10])
def test_the_iteration_for_gpus_replaces_dependent_rows(last):
    matrix = nearest_orthonormal(torch.randn(4, 16))
    matrix[3] = last * matrix[2] + max(last - 1, 0) * torch.ones(16)
    nearest = _halley_iteration(torch.stack([matrix, torch.zeros_like(matrix)]))
    torch.testing.assert_close(nearest @ nearest.mT, torch.eye(4).double().expand(2, 4, 4), atol=1e-12, rtol=0)
    torch.testing.assert_close(nearest[0, :2], matrix[:2], atol=1e-6, rtol=0)


def test_on_a_gpu_divergence_is_detected_within_64_calls(monkeypatch):
    calls, on_device = [], torch.ones(1, 2, 4, device="meta")
    monkeypatch.setattr(torch, "isfinite", lambda values: calls.append(1) or torch.zeros(()))
    with pytest.raises(ActshiftError, match="no longer finite"):
        for _ in range(64):
            nearest_orthonormal(on_device)
    assert calls == [1]


def test_a_diverged_matrix_is_an_error():
    module = LoReFT(2).build(4)
    with torch.no_grad():
        module.write[0, 0] = float("nan")
    with pytest.raises(ActshiftError, match="no longer finite: training has diverged"):
        module.after_step()


def test_the_orthogonality_rule_may_edit_noreft_and_direft_but_not_loreft():
    assert LoReFT(2).build(4).reads() == LoReFT(2).build(4).writes() == []
    for kind, reads in ((NoReFT, 2), (DiReFT, 1)):
        module = kind(2).build(4)
        assert [tuple(m.shape) for m in module.reads()] == [(2, 4)] * reads
        assert [tuple(m.shape) for m in module.writes()] == [(4, 2)]
        with torch.no_grad():
            module.writes()[0].fill_(3)  # a view of the parameter
        assert torch.equal(module.write, torch.full((2, 4), 3.0))


@pytest.mark.parametrize("kind", FAMILY)
def test_a_rank_that_does_not_fit_is_rejected(kind):
    with pytest.raises(ActshiftError, match="rank must be a whole number from 1 up, got 0"):
        kind(0)
    with pytest.raises(ActshiftError, match="rank 9 is above the site's width 8"):
        kind(9).build(8)


def test_a_batch_is_restored_like_each_matrix_alone():
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 4, 9, generator=draw, dtype=torch.float64)
    for case in (matrices, matrices * torch.tensor([[1.0], [1.0], [1.0], [1e-6]], dtype=torch.float64)):
        torch.testing.assert_close(
            nearest_orthonormal(case), torch.stack([nearest_orthonormal(matrix) for matrix in case])
        )
    shifts = [LoReFT(rank=rank).build(9) for rank in (2, 3, 2)]
    for shift in shifts:
        torch.nn.init.normal_(shift.write, generator=draw)
    type(shifts[0]).after_step_of_all(shifts)
    assert max(map(_deviation, shifts)) < 1e-6
