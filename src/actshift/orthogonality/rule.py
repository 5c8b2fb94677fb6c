"""The rule between the two halves of a joint adapter, as a typed value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from actshift.errors import ActshiftError, did_you_mean

Side = Literal["read", "write", "both"]


@dataclass(frozen=True)
class Orthogonality:
    """Keep the steering half of a joint adapter out of what the weights' half of the same block writes.

    With B the LoRA-B of the block's MLP output map and Q an orthonormal basis of col(B), after an optimiser step:
    "read" (the paper's) W_down ← W_down (I − QQᵀ); "write" W_up ← (I − QQᵀ) W_up; "both" does both. `every` is the
    number of optimiser steps between projections, or "epoch": in between the rule does not hold. `penalty` λ replaces
    the projection by a soft one: λ‖W_down Q‖²_F (or ‖QᵀW_up‖²_F) is added to the loss of every step, Q held constant.

    Raises ActshiftError for an unknown side, an `every` under 1, a penalty that is not a positive number, and a penalty
    together with `every`.
    Source: arXiv 2603.00425, joint adaptation; "write", "both" and the penalty are [ours], and so is projecting after
    the step: the paper's code projects before it, which leaves its checkpoint one step away from its own rule.

    >>> Orthogonality(side="write").to_dict()
    {'side': 'write', 'every': 1, 'penalty': None}
    """

    side: Side = "read"
    every: int | Literal["epoch"] = 1
    penalty: float | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.side not in get_args(Side):
            allowed = get_args(Side)
            raise ActshiftError(
                f"unknown side {self.side!r}{did_you_mean(self.side, allowed)}; use 'read' (the paper's), 'write' or "
                "'both'."
            )
        if self.every != "epoch" and (type(self.every) is not int or self.every < 1):
            raise ActshiftError(f"every must be a number of optimiser steps from 1 up, or 'epoch'; got {self.every!r}.")
        if self.penalty is None:
            return
        if isinstance(self.penalty, bool) or not isinstance(self.penalty, int | float) or not self.penalty > 0:
            raise ActshiftError(
                f"penalty must be a number above 0 such as 0.1, or None to project; got {self.penalty!r}."
            )
        if not math.isfinite(self.penalty):
            raise ActshiftError(f"penalty must be finite, got {self.penalty!r}; to make the rule strict, leave it out.")
        if self.every != 1:
            raise ActshiftError(
                f"a penalty acts at every optimiser step, so every={self.every!r} cannot stand beside it."
            )

    @property
    def reads(self) -> bool:
        """Whether what the adapter reads (W_down) is under the rule."""
        return self.side in ("read", "both")

    @property
    def writes(self) -> bool:
        """Whether what the adapter writes (W_up, or a vector) is under the rule."""
        return self.side in ("write", "both")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON, as `from_dict` reads them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Orthogonality:
        """Return the rule that `to_dict` described.

        Raises ActshiftError for an unknown field.

        >>> Orthogonality.from_dict({"every": "epoch"})
        Orthogonality(side='read', every='epoch', penalty=None)
        """
        known = [item.name for item in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ActshiftError(
                    f"unknown field {name!r} of Orthogonality{did_you_mean(name, known)}; it takes {', '.join(known)}."
                )
        return cls(**values)
