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

    def trainer(self, model: Any, job: Any, arguments: Any, callbacks: Any) -> Any:
        """Return TRL's SFTTrainer, told of the learning rates of the halves."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

        from actshift.loading import pad_id
        from actshift.training.trainer import trainer_of

        return trainer_of(SFTTrainer)(
            model,
            arguments,
            lora_learning_rate=job.settings.lora_learning_rate,
            data_collator=DataCollatorForLanguageModeling(pad_token_id=pad_id(job.tokenizer)),
            processing_class=job.tokenizer,
            callbacks=callbacks,
            **job.examples.datasets(),
        )
