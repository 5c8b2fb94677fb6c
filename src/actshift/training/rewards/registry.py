"""Rewards by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks import Scorer
from actshift.training.rewards.own import own_reward
from actshift.training.rewards.reward import Reward
from actshift.training.rewards.right import right_answer, right_form

REWARDS: dict[str, Callable[[Scorer], Reward]] = {"right_answer": right_answer, "right_form": right_form}
"""Every reward by its name, of the scorer that judges."""


def get_rewards(names: Sequence[str], scorer: Scorer) -> list[Reward]:
    """Return the rewards of these names: those of `REWARDS`, judged by `scorer`, and functions as module:function.

    Raises ActshiftError for an unknown name, with the nearest one, and for what `own_reward` refuses.

    >>> from actshift.tasks import get_scorer
    >>> [reward.name for reward in get_rewards(["right_answer", "right_form"], get_scorer("number"))]
    ['right_answer', 'right_form']
    """
    return [own_reward(name) if ":" in name else _named(name)(scorer) for name in names]


def _named(name: str) -> Callable[[Scorer], Reward]:
    if name not in REWARDS:
        raise ActshiftError(
            f"There is no reward {name!r}{did_you_mean(name, REWARDS)}; give {' or '.join(REWARDS)}, or a Python "
            "function of your own as module:function."
        )
    return REWARDS[name]
