"""Supervised fine-tuning of a causal language model with TRL."""

from typing import Any

from actshift.data import LANGUAGE
from actshift.training.objectives.objective import Examples, Objective
from actshift.training.settings import TrainSettings


class Sft(Objective):
    """Cross-entropy on the completions of prompts; plain text counts whole."""

    name = "sft"
    summary = "write the completions"
    kinds = LANGUAGE
    trainer = "trl.trainer.sft_trainer:SFTTrainer"
    arguments = "trl.trainer.sft_config:SFTConfig"

    def training_arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's arguments for rows that are tokenized already."""
        return super().training_arguments(settings, dataset_kwargs={"skip_prepare_dataset": True}, **common)

    def trainer_kwargs(self, examples: Examples, settings: TrainSettings, arguments: Any) -> dict[str, Any]:
        """Return the datasets and TRL's collator."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        from actshift.loading import pad_id

        collator = DataCollatorForLanguageModeling(pad_token_id=pad_id(examples.tokenizer))
        return {**super().trainer_kwargs(examples, settings, arguments), "data_collator": collator}
