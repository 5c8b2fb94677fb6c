"""A reward: a function of completions in the signature of TRL, whose every answer is checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

from actshift.errors import ActshiftError, first_line


@dataclass(frozen=True)
class Reward:
    """A function by its name: of `completions`, their `prompts` and the rows' columns, all lists, to a number each.

    The signature is that of TRL's `GRPOTrainer`; None says that a completion is not judged. All are texts.

    Raises ActshiftError, when called, for a function that raises or returns anything else, with the step it was at.

    >>> Reward("short", lambda completions, **columns: [-len(text) for text in completions])(completions=["a", "bcd"])
    [-1.0, -3.0]
    """

    name: str
    function: Callable[..., Sequence[SupportsFloat | None]]

    @property
    def __name__(self) -> str:
        """By which TRL logs it."""
        return self.name

    def __call__(self, *, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """Return the reward of each completion."""
        state = columns.get("trainer_state")
        where = f" at step {state.global_step + 1}; mend it and go on with --resume" if state is not None else ""
        try:
            values = self.function(completions=completions, **columns)
        except Exception as error:  # whatever the user's code raises
            raise ActshiftError(
                f"The reward {self.name} raised {type(error).__name__} ({first_line(error).rstrip('.')}){where}."
            ) from error
        if fault := _fault(values, len(completions)):
            raise ActshiftError(f"The reward {self.name} {fault}{where}.")
        return [None if value is None else float(value) for value in values]


def _fault(values: Any, wanted: int) -> str | None:
    try:
        found = list(values)
    except TypeError:
        return f"returned {type(values).__name__} where a list with a number for each completion belongs"
    if len(found) != wanted:
        return f"returned {len(found)} numbers for {wanted} completions"
    wrong = next((value for value in found if not _is_number(value)), None)
    return None if wrong is None else f"returned {wrong!r:.60} where a finite number belongs"


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    try:
        return not isinstance(value, str) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
