"""What a run can be trained to do: one file adds one."""

from __future__ import annotations

from actshift.training.objectives.classify import Classify, Embed, Tag
from actshift.training.objectives.dpo import Dpo
from actshift.training.objectives.grpo import Grpo
from actshift.training.objectives.objective import Objective
from actshift.training.objectives.sft import Sft

OBJECTIVES: dict[str, Objective] = {one.name: one for one in (Sft(), Dpo(), Grpo(), Classify(), Tag(), Embed())}
"""Every objective, by its name."""

__all__ = ["OBJECTIVES", "Objective"]
