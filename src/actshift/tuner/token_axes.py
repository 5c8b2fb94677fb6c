"""Find the axes of batch and sequence in the activations that a steering layer gets.

Most models pass `[batch, seq, d]`. XLNet and FSMT pass `[seq, batch, d]`, Gemma-3n `[streams, batch, seq, d]`, and OPT
passes `[batch * seq, d]` inside its blocks. The shape of the model's tokens shows which it is, unless sizes are equal.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from torch import Tensor

from actshift.errors import ActshiftError

TokenShape = tuple[int, int | None]  # batch and sequence; the sequence of images and audio is unknown
FLAT = (-1, -1)  # batch and sequence are one axis


def token_shape(arguments: Mapping[str, Any]) -> TokenShape | None:
    """Return the shape of the tokens in the arguments of a forward pass, or None without a tensor."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.ndim}
    for name, tensor in tensors.items():
        is_ids = tensor.ndim == 2 and not tensor.is_floating_point()
        if name in ("input_ids", "inputs_embeds") or (is_ids and len(tensors) == 1):
            return (tensor.shape[0], tensor.shape[1]) if tensor.ndim > 1 else None
    return next(((tensor.shape[0], None) for tensor in tensors.values()), None)


def token_axes(x: Tensor, shape: TokenShape, layer: Any) -> tuple[int, int]:
    """Return the axes of batch and sequence in `x [..., d]`, or FLAT; `layer.axes` are those to expect.

    A layer outside of transformers learns its axes from the first call whose sizes differ.

    Raises:
        ActshiftError: if the sizes fit no axes, or several.
    """
    (batch, seq), sizes, expected = shape, x.shape[:-1], layer.axes

    def fits(axes: tuple[int, int]) -> bool:
        return max(axes) < len(sizes) and sizes[axes[0]] == batch and seq in (None, sizes[axes[1]])

    if expected and fits(expected):
        return expected
    fitting = [axes for axes in permutations(range(len(sizes)), 2) if fits(axes)]
    if len(fitting) == 1 or (fitting and len(sizes) == 2 and batch == seq == 1):
        if len(fitting) == 1 and not expected:
            layer.axes = fitting[0]
        return fitting[0]
    if fitting:
        problem = f"several axes of {list(x.shape)} could be those of {batch} rows and {seq or 'its'} tokens"
        fix = "Run the model once on a batch whose number of rows differs from its number of tokens (pad them)"
        raise ActshiftError(f"{type(layer.host).__name__} is not part of transformers, and {problem}. {fix}.")
    if len(sizes) == 1 and seq is not None and sizes[0] == batch * seq and (expected == (0, 1) or 1 in (batch, seq)):
        return FLAT
    if expected and len(sizes) > max(expected) and sizes[expected[0]] == batch:
        return expected  # Funnel pools the sequence, and ProphetNet adds streams to it
    raise wrong_shape(x, shape, layer)


def wrong_shape(x: Tensor, shape: TokenShape, layer: Any) -> ActshiftError:
    """Return an error for activations in which the tokens of the call cannot be found."""
    tokens = f"{shape[0]} rows" if shape[1] is None else f"tokens of shape {list(shape)}"
    problem = f"{type(layer.host).__name__} passes {list(x.shape)} to the adapter in a call with {tokens}"
    return ActshiftError(f"{problem}, so its tokens are unknown. Choose another site, or steer all tokens of all rows.")
