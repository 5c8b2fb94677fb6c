"""What TRL's trainer is told beyond its settings. Importing this imports torch, transformers and trl."""

from __future__ import annotations

from typing import Any, cast

from datasets import Dataset
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from actshift.encoding import Encoded
from actshift.tuner.parameter_groups import parameter_groups


class Trainer(SFTTrainer):
    """SFTTrainer without a model card beside each checkpoint, and with a learning rate of its own for the LoRA half."""

    def __init__(self, *args: Any, lora_learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lora_learning_rate = lora_learning_rate
        self.processing_class = None  # else it aligns the model's special tokens, and saves a copy a checkpoint
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Split each of the inherited groups (with and without weight decay) into the halves, at their rates."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh and self.lora_learning_rate is not None:
            halves = parameter_groups(cast(nn.Module, self.model), self.args.learning_rate, self.lora_learning_rate)
            optimizer.param_groups[:] = [
                {**group, **half, "params": shared}
                for group in optimizer.param_groups
                for half in halves
                if (shared := [one for one in group["params"] if any(one is other for other in half["params"])])
            ]
        return optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the learning rate of the LoRA half beside the other's."""
        if "learning_rate" in logs and self.lora_learning_rate is not None:
            rates = {group["name"]: group["lr"] for group in cast(Optimizer, self.optimizer).param_groups}
            logs |= {"learning_rate": rates["activations"], "lora_learning_rate": rates["weights"]}
        super().log(logs, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; ours is written once, with the result."""


def collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorForLanguageModeling:
    """Return what makes padded batches of examples."""
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return DataCollatorForLanguageModeling(pad_token_id=cast(int, pad))


def dataset(encoded: Encoded) -> Dataset:
    """Return the examples as the trainer takes them."""
    return Dataset.from_list(encoded.examples)
