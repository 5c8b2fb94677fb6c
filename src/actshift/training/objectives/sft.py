"""Supervised fine-tuning of a causal language model with TRL."""

from typing import Any

from actshift.data import LANGUAGE
from actshift.data.encode import Encoded, encode
from actshift.training.configs import AdapterSpec
from actshift.training.objectives.objective import Examples, Objective, check_context
from actshift.training.settings import TrainSettings


class Sft(Objective):
    """Cross-entropy on the completions of prompts; plain text counts whole."""

    name = "sft"
    summary = "write the completions"
    kinds = LANGUAGE
    trainer = "trl.trainer.sft_trainer:SFTTrainer"
    arguments = "trl.trainer.sft_config:SFTConfig"

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any, config: Any = None) -> Encoded:
        """Return rows as token ids. The turns of a chat become one example where that changes no prompt.

        An adapter that steers only some tokens needs an example for each turn: as in generation, its prompt then is
        all that comes before the turn.
        """
        if "text" in rows.column_names:
            return super().encode(rows, tokenizer, settings, head, config)
        interventions = AdapterSpec.from_settings(settings).interventions
        joins = all(each.positions.where == "all" for each in interventions)
        turns = "last" if settings.loss == "last" else "joined" if joins else "each"
        encoded = encode(rows, tokenizer, settings.max_length, turns=turns)
        lengths = [len(example["input_ids"]) for example in encoded.examples]
        check_context(lengths, "their completions", tokenizer, config)
        return encoded

    def training_arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's arguments for rows that are tokenized already."""
        return super().training_arguments(settings, dataset_kwargs={"skip_prepare_dataset": True}, **common)

    def trainer_kwargs(self, examples: Examples, settings: TrainSettings, arguments: Any) -> dict[str, Any]:
        """Return the datasets and TRL's collator."""
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        from actshift.loading import pad_id

        collator = DataCollatorForLanguageModeling(pad_token_id=pad_id(examples.tokenizer))
        return {**super().trainer_kwargs(examples, settings, arguments), "data_collator": collator}
