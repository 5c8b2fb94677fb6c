"""The base class of training objectives, their registry, and checks that several of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from actshift.data.encode import Encoded, EncodedExample, class_names, encode
from actshift.data.rows import Columns
from actshift.errors import ActshiftError
from actshift.model_head import CLASSIFIERS, Head, TaskType
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments


@dataclass(frozen=True)
class Examples:
    """The encoded rows for training and evaluation, and their tokenizer; `held_out` is None without evaluation."""

    train: Encoded
    held_out: Encoded | None
    tokenizer: PreTrainedTokenizerBase

    @property
    def digest(self) -> str:
        """A fingerprint of all examples."""
        return self.train.digest + (self.held_out.digest if self.held_out else "")


OBJECTIVES: dict[str, Objective] = {}  # by name


class Objective:
    """A training objective: the rows it reads, the model head it needs, and the trainer that minimises its loss.

    The methods with a default implement supervised fine-tuning. The definition of a subclass adds it to `OBJECTIVES`.

    Attributes:
        name: the value of the setting `objective`. Write it as a literal: `settings` reads it from the source.
        summary: a few words for the help text, also a literal.
        kinds: the sets of columns that its rows may have.
        form: the form in which tasks provide rows for it: texts (or messages, for chat templates) or labels.
        metrics: the trainer's log entries that a result reports besides the loss, each with its name there.
        trainer: the trainer class, as `module:name`, and `arguments`, the class of its arguments.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    task_type: ClassVar[TaskType] = "CAUSAL_LM"
    kinds: ClassVar[Sequence[Columns]]
    form: ClassVar[Literal["text", "labels"]] = "text"
    metrics: ClassVar[Mapping[str, str]] = {}
    trainer: ClassVar[str] = "transformers:Trainer"
    arguments: ClassVar[str] = "transformers:TrainingArguments"

    def __init_subclass__(cls) -> None:
        OBJECTIVES[cls.name] = cls()

    def head(self, rows: Dataset, labels: Sequence[str] = ()) -> Head:
        """Return the head that a model needs for `rows`; by default its class names are collected from the rows.

        Raises:
            ActshiftError: a classifier has fewer than two classes.
        """
        if self.task_type not in CLASSIFIERS:
            return Head(self.task_type)
        named = tuple(labels) or class_names(rows)
        if len(named) < 2:
            raise ActshiftError(f"All rows have the label {', '.join(named)!r}; a classifier needs two classes.")
        return Head(self.task_type, named)

    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings, head: Head, config: Any = None
    ) -> Encoded:
        """Return rows in the form that the trainer reads; `config` is the model's, for its context length.

        Raises:
            ActshiftError: the rows or the settings do not fit the objective.
        """
        return encode(rows, tokenizer, min(settings.max_length, context_limit(tokenizer, config)), head.labels)

    def model_inputs(self, encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[EncodedExample]:
        """Return encoded rows as inputs of one forward pass, on which an adapter can be measured."""
        return encoded.examples

    def training_arguments(self, settings: TrainSettings, **common: Any) -> TrainingArguments:
        """Return the trainer's arguments: `common`, plus arguments specific to the objective."""
        return resolve_name(self.arguments)(**common)

    def trainer_class(self) -> Any:
        """Return the trainer class, from transformers or TRL."""
        return resolve_name(self.trainer)

    def trainer_kwargs(self, examples: Examples, settings: TrainSettings, arguments: Any) -> dict[str, Any]:
        """Return the keyword arguments of the trainer that depend on the objective: datasets, collator, rewards."""
        from datasets import Dataset

        held_out = Dataset.from_list(examples.held_out.examples) if examples.held_out else None
        return {"train_dataset": Dataset.from_list(examples.train.examples), "eval_dataset": held_out}

    def build_trainer(
        self, model: Any, examples: Examples, settings: TrainSettings, arguments: Any, callbacks: Sequence[Any]
    ) -> Any:
        """Return the trainer of `model` on `examples`, with `TrainerMixin`."""
        from actshift.training.trainer import TrainerMixin

        base = self.trainer_class()
        return type(base.__name__, (TrainerMixin, base), {})(
            model,
            args=arguments,
            lora_learning_rate=settings.lora_learning_rate,
            processing_class=examples.tokenizer,
            callbacks=callbacks,
            **self.trainer_kwargs(examples, settings, arguments),
        )


def check_settings(settings: TrainSettings) -> None:
    """Raise ActshiftError if a setting is used that needs the completions of supervised rows."""
    for name, default in (("init", "default"), ("group_by_length", False), ("cache_prefix", "off")):
        value = getattr(settings, name)
        if value not in (default, "reference"):
            raise ActshiftError(f"{name} {value} needs completions as in sft; leave it out for {settings.objective}.")


def check_context(lengths: Sequence[int], parts: str, tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Raise ActshiftError if a row (of `parts`) exceeds the `context_limit`."""
    context = context_limit(tokenizer, config)
    if too_long := [row for row, length in enumerate(lengths, start=1) if length > context]:
        raise ActshiftError(
            f"{len(too_long)} of {len(lengths)} rows exceed the model's context of {context} tokens with {parts}, such "
            f"as row {too_long[0]}, with {lengths[too_long[0] - 1]}. Shorten them, or lower max_length to skip them."
        )


def context_limit(tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """Return the number of tokens in the model's context, or in the tokenizer's if `config` is None."""
    from actshift.loading import context_length

    return tokenizer.model_max_length if config is None else context_length(config, tokenizer)


def remove_reference(model: Any) -> None:
    """Remove TRL's copy "ref" of the adapter. A new adapter is the identity: without it, the model is the reference."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
