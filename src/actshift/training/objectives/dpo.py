"""Direct preference optimisation with TRL (Rafailov et al., arXiv 2305.18290).

The reference model is the model before training: with an adapter, the same model with the adapter switched off.
"""

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from actshift.data import PREFERENCES
from actshift.data.encode import Encoded, EncodedExample, encode, indices_within
from actshift.data.layouts import TEMPLATE
from actshift.errors import ActshiftError
from actshift.training.objectives.objective import Objective, check_context, check_settings, remove_reference
from actshift.training.settings import TrainSettings


@dataclass(frozen=True)
class Preferences(Encoded):
    """Rows with `prompt_ids`, `chosen_ids` and `rejected_ids`, which TRL concatenates."""

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt with one of its completions."""
        return max(_length(example) for example in self.examples)


class Dpo(Objective):
    """Prefer the chosen completion of each prompt to the rejected one."""

    name = "dpo"
    summary = "prefer one of two completions"
    kinds = PREFERENCES
    metrics: ClassVar = {"rewards/margins": "margin", "rewards/accuracies": "preference_accuracy"}
    arguments = "trl.trainer.dpo_config:DPOConfig"

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any, config: Any = None) -> Preferences:
        """Return prompts and completions as token ids, encoded as in supervised training.

        Raises:
            ActshiftError: the rows have no preferences or are all too long, or settings do not fit.
        """
        check_settings(settings)
        if settings.beta == 0:
            raise ActshiftError("beta 0 makes the loss of dpo constant; give a number above 0, such as 0.1.")
        if "chosen" not in rows.column_names:
            raise ActshiftError("dpo needs rows of prompt, chosen and rejected, which no task has; give --data.")
        chosen, rejected = (encode(_side(rows, name), tokenizer, sys.maxsize) for name in ("chosen", "rejected"))
        pairs = zip(chosen.examples, rejected.examples, strict=True)
        examples = [_example(number, *pair) for number, pair in enumerate(pairs, start=1)]
        kept = [examples[row] for row in indices_within([_length(row) for row in examples], settings.max_length)]
        check_context([_length(example) for example in kept], "their completions", tokenizer, config)
        return Preferences(kept, left_out=len(examples) - len(kept))

    def model_inputs(self, encoded: Encoded, tokenizer: Any) -> list[EncodedExample]:
        """Return the prompts with their chosen completions."""
        return [{"input_ids": example["prompt_ids"] + example["chosen_ids"]} for example in encoded.examples]

    def training_arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's arguments. If every weight is trained, the reference log-probabilities are precomputed."""
        return super().training_arguments(
            settings,
            beta=0.1 if settings.beta is None else settings.beta,  # the default of the paper and of TRL
            max_length=None,  # long rows are left out already
            disable_dropout=settings.lora_dropout == 0,
            precompute_ref_log_probs=settings.method == "full",
            **common,
        )

    def trainer_class(self) -> Any:
        """Return TRL's DPOTrainer for rows that are tokenized already."""
        from trl.trainer.dpo_trainer import DPOTrainer

        class PreferenceTrainer(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset

        return PreferenceTrainer

    def build_trainer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer, whose reference is the model with its adapter switched off."""
        trainer = super().build_trainer(model, *args, **kwargs)
        remove_reference(model)
        return trainer


def _side(rows: Any, name: str) -> Any:
    """Return one side of the preferences as supervised rows: prompt and completion, or messages."""
    if isinstance(rows[0][name], str):
        return rows.select_columns(["prompt", name]).rename_column(name, "completion")
    template = [column for column in TEMPLATE if column in rows.column_names]
    return rows.select_columns([name, *template]).rename_column(name, "messages")


def _example(number: int, chosen: EncodedExample, rejected: EncodedExample) -> EncodedExample:
    # The end-of-text token always has a label, so there is a first one.
    start = next(index for index, label in enumerate(chosen["labels"]) if label >= 0)
    ids, other = chosen["input_ids"], rejected["input_ids"]
    if ids[:start] != other[:start]:
        raise ActshiftError(f"Row {number} has two chats that differ before their last turn.")
    return {"prompt_ids": ids[:start], "chosen_ids": ids[start:], "rejected_ids": other[start:]}


def _length(example: EncodedExample) -> int:
    return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))
