"""What every adapter is: a frozen description that builds the module computing the shift.

Shape alphabet of this package: batch, seq, d (the width of the site, d_model), r (the rank), and at the
attention heads: heads, d_head, with d = heads · d_head.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from actshift.adapters.factors import Factors
from actshift.adapters.light import LightModule
from actshift.errors import ActshiftError, did_you_mean

ADAPTERS: dict[str, type[Adapter]] = {}
"""Every adapter by its `kind`, filled by `register` where each class is written."""

A = TypeVar("A", bound="type[Adapter]")


class Shift(LightModule):
    """The module that an adapter builds: maps `x [..., d]` to `Δ(x)`, of that shape or one that broadcasts to it.

    The methods below are what the tuner calls around every optimiser step, what the orthogonality rule
    reads, and what lets many shifts be computed at once; a shift that needs none of them overrides only `forward`.
    """

    def penalty(self) -> Tensor | None:
        """Return a scalar that is added to the loss of every optimiser step, or None."""
        return None

    def after_step(self) -> None:
        """Restore what the adapter promises of its tensors, after an optimiser changed them."""

    @classmethod
    def after_step_of_all(cls, shifts: Sequence[Shift]) -> None:
        """Do `after_step` for several shifts of this class, which may be quicker together."""
        for shift in shifts:
            shift.after_step()

    def finish(self) -> None:
        """End training: settle whatever was only soft while the adapter learnt."""

    def factors(self) -> Factors | None:
        """Return the tensors that the shift is made of now, where it is a low-rank map or a constant; else None.

        Whoever computes with them need not call the module; None too where a hook would miss that call.
        """
        return None

    def reads(self) -> list[Tensor]:
        """Return the matrices `[r, d]` through whose rows the shift sees the activation, to be changed in place."""
        return []

    def writes(self) -> list[Tensor]:
        """Return the matrices `[d, r]` (or vectors `[d]`) whose columns span what the shift can be, likewise.

        Each is a parameter or a view of one.
        """
        return []


@dataclass(frozen=True)
class Adapter(ABC):
    """The description of one intervention Δ, without weights: what a config stores and a site builds.

    A subclass is a frozen dataclass that names its `kind`, checks itself in `__post_init__`, and builds the
    module which maps activations `x [..., d]` to the shift `Δ(x) [..., d]`. A freshly built module must return
    exactly zero, so that an untrained adapter leaves its model as it was.
    """

    kind: ClassVar[str]

    @abstractmethod
    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return the module `x [..., d] -> Δ(x) [..., d]` for a site of `width` d, in float32.

        `heads` is the number of attention heads that d is made of, at a site that has them.
        """

    @abstractmethod
    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return the number of trainable parameters at one site of `width` d."""

    def check_shape(self, width: int, heads: int | None = None) -> None:  # noqa: B027  most adapters stand anywhere
        """Raise ActshiftError where the adapter cannot stand at a site of `width` d, of so many `heads` or none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the kind, as `adapter_from_dict` reads them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def register(cls: A) -> A:
    """Make an adapter class known by its `kind`; used as a decorator beside the class."""
    ADAPTERS[cls.kind] = cls
    return cls


def adapter_from_dict(values: dict[str, Any]) -> Adapter:
    """Return the adapter that `Adapter.to_dict` described.

    Raises ActshiftError for an unknown kind or field, naming the nearest allowed one.

    >>> from actshift import LowRank
    >>> adapter_from_dict(LowRank(rank=4).to_dict())
    LowRank(rank=4, activation='silu', bias=False, init='default')
    """
    fields = dict(values)
    kind = fields.pop("kind", None)
    if kind not in ADAPTERS:
        raise ActshiftError(
            f"unknown adapter kind {kind!r}{did_you_mean(kind, ADAPTERS)}; known are {', '.join(sorted(ADAPTERS))}."
        )
    cls = ADAPTERS[kind]
    allowed = [field.name for field in dataclasses.fields(cls)]
    for name in fields:
        if name not in allowed:
            raise ActshiftError(
                f"unknown field {name!r} of adapter {kind!r}{did_you_mean(name, allowed)}; "
                f"it has {', '.join(allowed) or 'none'}. A newer actshift may have written it: pip install -U actshift."
            )
    return cls(**fields)


def check_rank(rank: Any, width: int | None = None) -> None:
    """Raise ActshiftError unless the rank is a whole number from 1 up, and up to `width` where one is given.

    >>> check_rank(8, width=64)
    """
    if type(rank) is not int or rank < 1:
        raise ActshiftError(f"rank must be a whole number from 1 up, got {rank!r}.")
    if width is not None and rank > width:
        raise ActshiftError(
            f"rank {rank} is above the site's width {width}; use a rank from 1 to {width} (8 is the usual choice)."
        )


def check_weight(name: str, value: Any) -> None:
    """Raise ActshiftError unless a penalty's weight is a finite number from 0 up.

    >>> check_weight("l1", 1e-3)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ActshiftError(f"{name} must be a number from 0 (no penalty) up, such as 0.001; got {value!r}.")


def head_width(kind: str, width: int, heads: int | None) -> int:
    """Return d_head, the width of one of the `heads` that make up a site of `width` d.

    Raises ActshiftError at a site without heads, and where they do not share the width evenly.

    >>> head_width("jola", 64, heads=4)
    16
    """
    if heads is None:
        raise ActshiftError(
            f"adapter {kind!r} steers attention heads, and this site has none; use site='attention_heads'."
        )
    if heads < 1 or width % heads:
        raise ActshiftError(
            f"adapter {kind!r} needs heads of equal width, and {heads} heads cannot share a width of {width} evenly."
        )
    return width // heads
