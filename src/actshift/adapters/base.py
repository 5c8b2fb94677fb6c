"""Base classes of adapters, the registry of adapter kinds, and checks that several adapters share.

Shapes in this package: `batch`, `seq`; `d`, the width of the site (d_model); `r`, the rank; at attention heads `heads`
and `d_head`, with d = heads · d_head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.functional import Factors
from actshift.errors import ActshiftError, check_choice, check_fields, is_number, show

ADAPTERS: dict[str, type[Adapter]] = {}  # by `kind`; a new subclass that names its `kind` is added


class Shift(nn.Module):
    """Base class of the modules that adapters build: maps `x [..., d]` to `Δ(x)`, of that shape or broadcastable to it.

    A subclass implements `forward` and the constructor that `Adapter.build` calls. The other methods are optional: the
    tuner calls `penalty`, `after_step` and `finish` during training, the orthogonality rule edits the matrices of
    `reads` and `writes` (parameters or views of them) in place, and `factors` allows batched products.
    """

    def penalty(self) -> Tensor | None:
        """Return a scalar that is added to the loss of every optimiser step, or None."""
        return None

    def after_step(self) -> None:
        """Restore constraints on the parameters, such as orthonormal rows, after an optimiser step."""

    @classmethod
    def after_step_of_all(cls, shifts: Sequence[Shift]) -> None:
        """Call `after_step` on several shifts of this class. Override it if a batched computation is faster."""
        for shift in shifts:
            shift.after_step()

    def finish(self) -> None:
        """Finalise the parameters at the end of training, such as rounding soft gates to 0 or 1."""

    def factors(self) -> Factors | None:
        """Return the current tensors if the shift is a low-rank map or a constant, else None.

        The caller computes the shift from them without calling the module, so a module with hooks returns None too.
        """
        return None

    def reads(self) -> list[Tensor]:
        """Return the matrices `[r, d]` that are applied to the activation."""
        return []

    def writes(self) -> list[Tensor]:
        """Return the matrices `[d, r]` (or vectors `[d]`) whose columns span the possible shifts."""
        return []


@dataclass(frozen=True)
class Adapter:
    """Base class of adapter descriptions: the hyperparameters of one intervention Δ, without weights.

    A config stores an adapter, and each steered site builds a `Shift` from it. A subclass is a frozen dataclass that
    validates its fields in `__post_init__`, and names its `kind`, which registers it, and its class of `shift`. A
    freshly built shift must return exactly zero, which leaves the model unchanged until training starts.

    Source: docs/method.md#adapters.
    """

    kind: ClassVar[str]
    shift: ClassVar[type[Shift]]

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            ADAPTERS[cls.kind] = cls

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a float32 module that maps `x [..., d]` to `Δ(x) [..., d]`, for a site of `width` d.

        `heads` is the number of attention heads that d consists of, None at a site without heads. Errors are as in
        `check_shape`.
        """
        self.check_shape(width, heads)
        return self.shift(self, width, heads)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return the number of trainable parameters at a site of `width` d. Arguments and errors are as in `build`."""
        with torch.device("meta"):  # allocates no memory
            return sum(parameter.numel() for parameter in self.build(width, heads).parameters())

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError if the adapter does not fit a site of `width` d with this number of `heads` (or None)."""

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and the fields, for `adapter_from_dict`."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class RankAdapter(Adapter):
    """Base class of adapters of rank r, which is at most the width d of the site."""

    rank: int = 8

    def __post_init__(self) -> None:
        check_rank(self.rank)

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError if the rank is above the site's width d."""
        check_rank(self.rank, width)


class HeadAdapter(Adapter):
    """Base class of adapters that steer individual attention heads, and so need a site that has them."""

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError if the site has no attention heads, or `width` is not a multiple of their number."""
        if heads is None:
            raise ActshiftError(f"{self.kind!r} steers heads, but this site has none; use site='attention_heads'.")
        if heads < 1 or width % heads:
            raise ActshiftError(f"{self.kind!r}: a width of {width} is not divisible by {heads} heads.")


def adapter_from_dict(values: dict[str, Any]) -> Adapter:
    """Return the adapter that `Adapter.to_dict` described.

    Raises:
        ActshiftError: an unknown kind or field. The message suggests the nearest allowed name.

    >>> from actshift import LowRank
    >>> adapter_from_dict(LowRank(rank=4).to_dict())
    LowRank(rank=4, activation='silu', bias=False, init='default')
    """
    fields = dict(values)
    kind = fields.pop("kind", None)
    check_choice("adapter kind", kind, sorted(ADAPTERS))
    cls = ADAPTERS[kind]
    check_fields(f"adapter {kind!r}", fields, [field.name for field in dataclasses.fields(cls)])
    return cls(**fields)


def check_rank(rank: object, width: int | None = None) -> None:
    """Raise ActshiftError unless `rank` is an int from 1 to `width` (None for no upper limit)."""
    if type(rank) is not int or not 1 <= rank < 2**31:
        raise ActshiftError(f"rank must be a whole number from 1 up, got {show(rank)}.")
    if width is not None and rank > width:
        raise ActshiftError(f"rank {rank} is above the site's width {width}. Use a rank from 1 to {width}.")


def check_penalty_weight(name: str, value: float) -> None:
    """Raise ActshiftError unless the weight of a penalty is a finite number of at least 0."""
    if not is_number(value) or value < 0:
        raise ActshiftError(f"{name} must be a number from 0 (no penalty) up, such as 0.001; got {show(value)}.")
