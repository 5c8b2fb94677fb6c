"""One Triton kernel for a shift and for its backward pass, of one adapter or of one for each row of a batch.

Both read a `[tokens, d]`, take it down to the r numbers of each token, do something with these, and add what they are
taken up to:

    y = x + s·(W_up φ(z) + b_up),  z = W_down x + b_down           the shift
    g' = g + W_downᵀ δ,            δ = φ'(z) ⊙ s·W_upᵀ g           its gradient

Plain, x is read twice and the r numbers make three passes of their own; here x comes from memory once, and for the sum
again from the L2 cache, which is why no more programs run at a time than it has room for. Sums are in float32.
Written for CUDA without a CUDA device at hand: tested in Triton's interpreter, and its block sizes are not tuned.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(z):
    """Return tanh z, which Triton has no function for that its interpreter knows; near 0 by the series."""
    small = z * (1 + z * z * (-1 / 3 + z * z * (2 / 15 - z * z * 17 / 315)))
    return tl.where(tl.abs(z) < 0.1, small, 2 * tl.sigmoid(2 * z) - 1)


@triton.jit
def activated(z, ACTIVATION: tl.constexpr):
    """Return φ(z), by the names of `ACTIVATIONS`."""
    if ACTIVATION == "silu":
        return z * tl.sigmoid(z)
    elif ACTIVATION == "gelu":
        return 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    elif ACTIVATION == "relu":
        return tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "tanh":
        return tanh(z)
    else:
        return z


@triton.jit
def slope(gradient, z, ACTIVATION: tl.constexpr):
    """Return g ⊙ φ'(z), as `SLOPES` do."""
    if ACTIVATION == "silu":
        gate = tl.sigmoid(z)
        return gradient * gate * (1 + z * (1 - gate))
    elif ACTIVATION == "gelu":
        below = 0.5 * (1 + tl.erf(z * 0.7071067811865476))
        return gradient * (below + z * tl.exp(-0.5 * z * z) * 0.3989422804014327)
    elif ACTIVATION == "relu":
        return tl.where(z > 0, gradient, 0.0)
    elif ACTIVATION == "tanh":
        return gradient * (1 - tanh(z) * tanh(z))
    else:
        return gradient


@triton.jit
def through_the_code(
    x, base, out, z, delta, reads, writes, down_bias, up_bias, strength,
    tokens, width, rank, read_by_rank, read_by_width, write_by_rank, write_by_width,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """out = base + (x · reads → ·) · writes; with `delta` None the shift, which stores z, else its backward pass.

    `x`, `base`, `out` `[rows, tokens, width]`, `z` and `delta` `[rows, tokens, rank]`, all contiguous; `reads` and
    `writes` `[rows, rank, width]` with strides of their own within a row.
    """
    row = tl.program_id(1).to(tl.int64)
    r = tl.arange(0, RANK)
    in_rank = r < rank
    for block in range(tl.program_id(0), tl.cdiv(tokens, TOKENS), tl.num_programs(0)):
        token = block * TOKENS + tl.arange(0, TOKENS)
        in_tokens = (token < tokens)[:, None]
        at = (row * tokens + token)[:, None]
        code = tl.zeros((TOKENS, RANK), dtype=tl.float32)
        for start in range(0, width, WIDTH):
            column = start + tl.arange(0, WIDTH)
            in_width = (column < width)[None, :]
            seen = tl.load(x + at * width + column[None, :], in_tokens & in_width, other=0.0).to(tl.float32)
            map_at = row * rank * width + r[:, None] * read_by_rank + column[None, :] * read_by_width
            read = tl.load(reads + map_at, in_rank[:, None] & in_width, other=0.0).to(tl.float32)
            code = tl.dot(seen, tl.trans(read), code, input_precision=PRECISION)
        code_at, in_code = at * rank + r[None, :], in_tokens & in_rank[None, :]
        if delta is None:
            if down_bias is not None:
                code += tl.load(down_bias + row * rank + r, in_rank, other=0.0).to(tl.float32)[None, :]
            kept = code.to(z.dtype.element_ty)
            tl.store(z + code_at, kept, in_code)
            code = strength * activated(kept.to(tl.float32), ACTIVATION)
        else:
            kept = tl.load(z + code_at, in_code, other=0.0).to(tl.float32)
            code = slope(strength * code, kept, ACTIVATION).to(delta.dtype.element_ty)
            tl.store(delta + code_at, code, in_code)
            code = code.to(tl.float32)
        for start in range(0, width, WIDTH):
            column = start + tl.arange(0, WIDTH)
            in_width = (column < width)[None, :]
            map_at = row * rank * width + r[:, None] * write_by_rank + column[None, :] * write_by_width
            write = tl.load(writes + map_at, in_rank[:, None] & in_width, other=0.0).to(tl.float32)
            shift = tl.dot(code, write, input_precision=PRECISION)
            if up_bias is not None:
                bias = tl.load(up_bias + row * width + column[None, :], in_width, other=0.0).to(tl.float32)
                shift += strength * bias
            before = tl.load(base + at * width + column[None, :], in_tokens & in_width, other=0.0).to(tl.float32)
            tl.store(
                out + at * width + column[None, :], (before + shift).to(out.dtype.element_ty), in_tokens & in_width
            )
