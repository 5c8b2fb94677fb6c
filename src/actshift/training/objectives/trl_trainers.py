"""TRL's trainers of preferences and rewards as our runs use them. Importing this imports TRL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer

from actshift.data import token_ids

COPY = "ref"
"""TRL's name for its frozen copy of an adapter that it is given, and its sign to use it as the reference."""


class PreferenceTrainer(DPOTrainer):
    """On rows that are token ids already; the reference is the model with its adapter switched off."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        forget_copy(model)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class RewardTrainer(GRPOTrainer):
    """With prompts read as everywhere else; the reference is the model with its adapter switched off."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        forget_copy(model)


def forget_copy(model: Any) -> None:
    """Remove TRL's copy of the adapter: ours start as no shift at all, so the model without it is the reference."""
    if COPY in getattr(model, "peft_config", {}):
        model.delete_adapter(COPY)


class Reader:
    """Stands for the tokenizer in a trainer of rewards: reads a prompt as `token_ids` does, and is never saved."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rendered: bool) -> None:
        self.tokenizer = tokenizer
        self.rendered = rendered

    def __call__(self, text: Sequence[str]) -> dict[str, list[list[int]]]:
        """Return the ids of prompts; those that a chat template `rendered` have all the tokens that it wants."""
        return {"input_ids": token_ids(self.tokenizer, text, add_special_tokens=not self.rendered)}

    def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool = True) -> list[str]:
        """Return the texts of completions."""
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens))

    def save_pretrained(self, folder: str) -> None:
        """Do nothing; checkpoints hold no tokenizer."""
