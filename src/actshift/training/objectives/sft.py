"""Supervised fine-tuning of a causal language model, by TRL: the loss counts completions only, a text whole."""

from __future__ import annotations

from typing import Any

from actshift.data import LANGUAGE
from actshift.training.objectives.objective import Objective
from actshift.training.settings import TrainSettings


class Sft(Objective):
    """Learn to write the completions of prompts."""

    name = "sft"
    kinds = LANGUAGE

    def arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's settings; the rows are token ids already."""
        from trl.trainer.sft_config import SFTConfig

        return SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, **common)

    def trainer_class(self) -> Any:
        """Return TRL's SFTTrainer."""
        from trl.trainer.sft_trainer import SFTTrainer

        return SFTTrainer

    def given(self, job: Any, arguments: Any) -> dict[str, Any]:
        """Return the examples, and TRL's way to make batches of them."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        from actshift.loading import pad_id

        collator = DataCollatorForLanguageModeling(pad_token_id=pad_id(job.tokenizer))
        return {**super().given(job, arguments), "data_collator": collator}
