"""The rewards that a run's settings ask for, and whether they work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks import Scorer, get_scorer, get_task
from actshift.training.rewards.registry import get_rewards
from actshift.training.rewards.reward import Reward
from actshift.training.settings import TrainSettings


def scorer_of(settings: TrainSettings) -> Scorer:
    """Return who judges: as given, or as the task says; exact match where neither does.

    >>> scorer_of(TrainSettings(task="gsm8k")).name
    'number'
    """
    if settings.task and settings.scorer is None:
        return get_task(settings.task).scorer
    return get_scorer(settings.scorer or "exact")


def rewards_of(settings: TrainSettings) -> list[Reward]:
    """Return the rewards of a run; raise ActshiftError where there is none, or what `get_rewards` raises."""
    if not settings.reward:
        raise ActshiftError(
            "grpo needs a reward; give --reward right_answer, right_form or module:function, or several of them."
        )
    return get_rewards(settings.reward, scorer_of(settings))


def try_rewards(rewards: Sequence[Reward], examples: Sequence[Mapping[str, Any]]) -> None:
    """Call each reward on some rows as TRL will, so that one that fails does so before hours are spent.

    The completions are the rows' own, or empty where they have none. Raises what a `Reward` raises.
    """
    names = dict.fromkeys(name for example in examples for name in example if name != "prompt")
    for reward in rewards:
        reward(
            prompts=[example["prompt"] for example in examples],
            completions=[example.get("reference", "") for example in examples],
            completion_ids=[[] for _ in examples],
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
            **{name: [example.get(name) for example in examples] for name in names},
        )
