"""Direct preference optimisation, by TRL: of two completions, the chosen one becomes likelier than the other.

Rafailov et al., *Direct Preference Optimization*, 2023 (arXiv 2305.18290). How far the model may go is measured from
the model as it was before: with an adapter, the same model with the adapter switched off.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from actshift.data import PREFERENCES
from actshift.data.encode import Encoded, Example, encode, short_enough
from actshift.errors import ActshiftError
from actshift.training.objectives.limits import check_room, check_settings
from actshift.training.objectives.objective import Objective
from actshift.training.settings import TrainSettings

BETA = 0.1
"""The paper's, and TRL's."""


@dataclass(frozen=True)
class Preferences(Encoded):
    """Rows as `prompt_ids`, `chosen_ids` and `rejected_ids`, which TRL puts together."""

    @property
    def longest(self) -> int:
        """The length in tokens of the longest prompt with one of its completions."""
        return max(_length(example) for example in self.examples)


class Dpo(Objective):
    """Learn to prefer the chosen completion of each prompt to the rejected one."""

    name = "dpo"
    kinds = PREFERENCES
    figures: ClassVar = {"rewards/margins": "margin", "rewards/accuracies": "preferred right"}

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any) -> Preferences:
        """Return prompts and completions as token ids, each as supervised training would read it.

        Raises ActshiftError for rows without preferences, rows all too long, and settings that do not fit.
        """
        check_settings(settings)
        if settings.beta == 0:
            raise ActshiftError("beta 0 makes DPO's loss the same for every model; give a number above 0, such as 0.1.")
        if "chosen" not in rows.column_names:
            raise ActshiftError("dpo needs rows of prompt, chosen and rejected, which no task has; give --data.")
        chosen, rejected = (encode(_rows(rows, name), tokenizer, sys.maxsize) for name in ("chosen", "rejected"))
        pairs = zip(chosen.examples, rejected.examples, strict=True)
        whole = [_example(number, *pair) for number, pair in enumerate(pairs, start=1)]
        kept = [whole[place] for place in short_enough([_length(example) for example in whole], settings.max_length)]
        check_room([_length(example) for example in kept], "their completions", settings, tokenizer)
        return Preferences(kept, left_out=len(whole) - len(kept))

    def read(self, encoded: Encoded, tokenizer: Any) -> list[Example]:
        """Return the prompts with their chosen completions."""
        return [{"input_ids": one["prompt_ids"] + one["chosen_ids"]} for one in encoded.examples]

    def arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's settings; where every weight is trained, what the model says at the start is kept in numbers."""
        from trl.trainer.dpo_config import DPOConfig

        return DPOConfig(
            beta=BETA if settings.beta is None else settings.beta,
            max_length=None,  # rows too long are left out already
            disable_dropout=settings.lora_dropout == 0,
            precompute_ref_log_probs=settings.method == "full",
            **common,
        )

    def trainer_class(self) -> Any:
        """Return TRL's DPOTrainer, whose reference is the model without its adapter."""
        from actshift.training.objectives.trl_trainers import PreferenceTrainer

        return PreferenceTrainer


def _rows(rows: Any, name: str) -> Any:
    """Return one side of preferences as rows for supervised learning: a text after its prompt, or a whole chat."""
    if isinstance(rows[0][name], str):
        return rows.select_columns(["prompt", name]).rename_column(name, "completion")
    return rows.select_columns([name]).rename_column(name, "messages")


def _example(number: int, chosen: Example, rejected: Example) -> Example:
    start = next(place for place, label in enumerate(chosen["labels"]) if label >= 0)  # the end token, at the least
    ids, other = chosen["input_ids"], rejected["input_ids"]
    if ids[:start] != other[:start]:
        raise ActshiftError(f"Row {number} has two chats that differ before their last turn.")
    return {"prompt_ids": ids[:start], "chosen_ids": ids[start:], "rejected_ids": other[start:]}


def _length(example: Example) -> int:
    return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))
