"""What a model predicts with: the next token, a class, a tag a word, or nothing beyond its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

TaskType = Literal["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION"]
"""PEFT's names of the kinds of head."""
CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS")


@dataclass(frozen=True)
class Head:
    """The head of a model: PEFT's name of its kind, and of a classifier the names of its classes, in their order.

    >>> Head("SEQ_CLS", ("negative", "positive")).classifies
    True
    """

    task_type: TaskType = "CAUSAL_LM"
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.task_type} ({', '.join(self.labels)})" if self.labels else self.task_type

    @property
    def classifies(self) -> bool:
        """Whether it names classes, and so is trained beside any adapter."""
        return self.task_type in CLASSIFIERS

    @property
    def auto_class(self) -> Any:
        """The class of transformers that loads a model with such a head."""
        import transformers

        return getattr(transformers, _CLASSES[self.task_type])

    def settle(self, config: Any) -> Any:
        """Return a model's config with the names of the classes in it, where there are some."""
        if self.labels:
            config.num_labels = len(self.labels)
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: index for index, label in enumerate(self.labels)}
        return config


CAUSAL = Head()
"""The head of a causal language model."""


def labels_of(config: Any) -> tuple[str, ...]:
    """Return the names of the classes that a model's config gives its head, in their order; two by default."""
    return tuple(config.id2label[index] for index in sorted(config.id2label))


_CLASSES: dict[TaskType, str] = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "FEATURE_EXTRACTION": "AutoModel",
}


def own_head(config: Any) -> TaskType | None:
    """Return the head that a model's config says it was saved with; None for an encoder without one of these.

    What is no encoder predicts the next token, as it was pretrained to.

    >>> from transformers import BertConfig, LlamaConfig
    >>> own_head(BertConfig(architectures=["BertModel"])), own_head(LlamaConfig(architectures=["LlamaForCausalLM"]))
    (None, 'CAUSAL_LM')
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if task_type := _by_name((getattr(config, "architectures", None) or [""])[0]):
        return task_type
    return None if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "CAUSAL_LM"


def head_of(model: Any) -> TaskType | None:
    """Return the head of a loaded model, whatever adapter is on it; None for one that is none of these.

    >>> from transformers import BertConfig, BertModel
    >>> head_of(BertModel(BertConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1, vocab_size=8)))
    'FEATURE_EXTRACTION'
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(bare).__name__
    return _by_name(name) or ("FEATURE_EXTRACTION" if name.endswith("Model") else None)


def _by_name(architecture: str) -> TaskType | None:
    return next((task_type for ending, task_type in _ENDINGS.items() if architecture.endswith(ending)), None)


_ENDINGS: dict[str, TaskType] = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
}
