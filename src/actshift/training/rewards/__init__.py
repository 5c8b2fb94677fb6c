"""What reinforcement learning rewards: by name for tasks with an answer, or a Python function of one's own."""

from __future__ import annotations

from actshift.training.rewards.chosen import rewards_of, scorer_of, try_rewards
from actshift.training.rewards.registry import get_rewards
from actshift.training.rewards.reward import Reward

__all__ = ["Reward", "get_rewards", "rewards_of", "scorer_of", "try_rewards"]
