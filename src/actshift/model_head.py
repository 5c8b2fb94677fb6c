"""Model heads: the next token, a class per text, a tag per word, or no head (embeddings)."""

from dataclasses import dataclass
from typing import Any, Literal

TaskType = Literal["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION"]  # PEFT's names
CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS")

_AUTO_CLASSES: dict[TaskType, str] = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "FEATURE_EXTRACTION": "AutoModel",
}


@dataclass(frozen=True)
class Head:
    """The head of a model: its type by PEFT's name, and for a classifier the names of the classes in their order.

    >>> Head("SEQ_CLS", ("negative", "positive")).classifies
    True
    """

    task_type: TaskType = "CAUSAL_LM"
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.task_type} ({', '.join(self.labels)})" if self.labels else self.task_type

    @property
    def classifies(self) -> bool:
        """Whether this is a classifier, whose head is trained along with any adapter."""
        return self.task_type in CLASSIFIERS

    @property
    def auto_class(self) -> Any:
        """The class of transformers that loads a model with this head."""
        import transformers

        return getattr(transformers, _AUTO_CLASSES[self.task_type])

    def set_labels(self, config: Any) -> Any:
        """Write the class names, if there are any, to a model's config, and return the config."""
        if self.labels:
            config.num_labels = len(self.labels)
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: index for index, label in enumerate(self.labels)}
        return config


CAUSAL = Head()


def labels_of(config: Any) -> tuple[str, ...]:
    """Return the class names in a model's config, in their order. The default config has two."""
    return tuple(config.id2label[index] for index in sorted(config.id2label))


def head_of_config(config: Any) -> TaskType | None:
    """Return the head type that a model was saved with, according to its config; None for an encoder without a head.

    >>> from transformers import BertConfig, LlamaConfig
    >>> head_of_config(BertConfig(architectures=["BertModel"]))
    >>> head_of_config(LlamaConfig(architectures=["LlamaForCausalLM"]))
    'CAUSAL_LM'
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if task_type := _by_class_name((getattr(config, "architectures", None) or [""])[0]):
        return task_type
    return None if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "CAUSAL_LM"


def head_of(model: Any) -> TaskType | None:
    """Return the head type of a loaded model, with or without a PEFT wrapper; None if it is none of these.

    >>> from transformers import BertConfig, BertModel
    >>> head_of(BertModel(BertConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1, vocab_size=8)))
    'FEATURE_EXTRACTION'
    """
    name = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
    return _by_class_name(name) or ("FEATURE_EXTRACTION" if name.endswith("Model") else None)


def _by_class_name(name: str) -> TaskType | None:
    for task_type, auto_class in _AUTO_CLASSES.items():
        if (suffix := auto_class.removeprefix("AutoModel")) and name.endswith(suffix):
            return task_type
    return "CAUSAL_LM" if name.endswith("LMHeadModel") else None
