"""The head of a classifier: train it with an adapter, copy it, and read it from a saved adapter."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.files import write_atomically
from actshift.model_head import CAUSAL, CLASSIFIERS, Head, TaskType, head_of, labels_of
from actshift.sites.blocks import unwrap
from actshift.tuner.checkpoint import adapter_file, read_adapter_json, read_checkpoint
from actshift.tuner.fields import check_field_values, is_name

METRICS = "metrics.json"  # in which a run of actshift stores the names of the classes


def train_whole_head(model: nn.Module, config: LoraConfig) -> None:
    """Make `config` train and save the whole head of a classifier, and exclude it from LoRA.

    PEFT does this for modules called classifier or score only. DistilBERT, for example, also has a pre_classifier.

    >>> from transformers import DistilBertConfig, DistilBertForSequenceClassification
    >>> size = dict(dim=8, hidden_dim=8, n_layers=1, n_heads=1, vocab_size=8)
    >>> config = LoraConfig(task_type="SEQ_CLS")
    >>> train_whole_head(DistilBertForSequenceClassification(DistilBertConfig(**size)), config)
    >>> config.modules_to_save
    ['pre_classifier', 'classifier']
    """
    if config.task_type not in CLASSIFIERS:
        return
    head = head_modules(model)
    config.modules_to_save = list(dict.fromkeys([*(config.modules_to_save or ()), *head]))
    if config.target_modules == "all-linear":
        linear = [name for name, module in unwrap(model).named_modules() if isinstance(module, nn.Linear | Conv1D)]
        config.target_modules = [name for name in linear if name.partition(".")[0] not in head]


def check_head(model: nn.Module, task_type: str | None) -> None:
    """Check that a model has the kind of head that a saved adapter was trained with.

    Raises:
        ActshiftError: if it has another kind.
    """
    head = head_of(model)
    if task_type in get_args(TaskType) and head not in (None, task_type):
        trained = f"This adapter was trained with the head {task_type}, and {type(unwrap(model)).__name__} has {head}"
        raise ActshiftError(f"{trained}; load the base model with the head {task_type}.")


def copy_head(model: nn.Module, other: nn.Module) -> None:
    """Copy the head's weights from classifier `other` to `model`, in place; models with an LM head stay unchanged.

    Raises:
        ActshiftError: if the heads are of different kinds or have different numbers of classes.
    """
    head, other_head = head_of(model), head_of(other)
    if head != other_head:
        raise ActshiftError(f"The models have different heads, {head} and {other_head}; load both with the same head.")
    if head not in CLASSIFIERS:
        return
    for name in head_modules(model):
        try:
            unwrap(model).get_submodule(name).load_state_dict(unwrap(other).get_submodule(name).state_dict())
        except RuntimeError as error:
            raise ActshiftError("The models have different numbers of classes; use versions of one model.") from error


def saved_head(source: str) -> Head:
    """Return the head of the adapter in folder or hub repository `source`.

    The names of the classes are those in metrics.json. Without that file they are LABEL_0, LABEL_1, ... as in
    transformers, one for each row of the saved head.

    Raises:
        ActshiftError: if `source` holds no adapter, or the head of its classifier is missing.

    >>> saved_head("run")  # doctest: +SKIP
    Head(task_type='SEQ_CLS', labels=('negative', 'positive'))
    """
    config = read_adapter_json(source)
    check_field_values(config, ("task_type", "modules_to_save"))
    task_type: Any = config.get("task_type")
    if task_type not in CLASSIFIERS:
        return Head(task_type) if task_type in get_args(TaskType) else CAUSAL
    modules = set(config.get("modules_to_save") or ())
    shapes = read_checkpoint(source).shapes
    sizes = [shape[0] for name, shape in shapes.items() if shape and modules.intersection(name.split("."))]
    if not sizes:
        raise ActshiftError(f"{source} was trained to classify, but its file holds no classifier head; train it again.")
    classes = min(sizes)  # the last linear map has the fewest rows
    try:
        labels = json.loads(Path(adapter_file(source, METRICS)).read_text(encoding="utf-8"))["head"]["labels"]
        valid = isinstance(labels, list) and len(labels) == classes and all(map(is_name, labels))
    except (ActshiftError, LookupError, RecursionError, TypeError, ValueError):
        labels, valid = (), False
    return Head(task_type, tuple(labels) if valid else tuple(f"LABEL_{index}" for index in range(classes)))


def save_class_names(folder: Path, model: nn.Module) -> None:
    """Write the names of a classifier's classes to metrics.json in `folder`, from which `saved_head` reads them."""
    task_type = head_of(model)
    if task_type in CLASSIFIERS:
        head = Head(task_type, labels_of(unwrap(model).config))
        write_atomically(folder / METRICS, json.dumps({"head": asdict(head)}) + "\n")


def head_modules(model: nn.Module) -> list[str]:
    """Return the names of the children that have parameters, except the body of the model."""
    bare = unwrap(model)
    body = getattr(bare, "base_model_prefix", "")
    return [name for name, module in bare.named_children() if name != body and any(True for _ in module.parameters())]
