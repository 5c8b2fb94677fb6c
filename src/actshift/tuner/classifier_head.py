"""The head of a classifier, which is trained beside any adapter and saved with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from peft import LoraConfig, PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.files import write_whole
from actshift.model_head import CAUSAL, CLASSIFIERS, Head, TaskType, head_of, labels_of
from actshift.tuner.checkpoint import Checkpoint, fetch, read_checkpoint, read_json

METRICS = "metrics.json"
"""Where a run of ours names the classes; an adapter of another maker has none."""


def with_head(model: nn.Module, config: LoraConfig) -> None:
    """Have a classifier's head trained and saved with the adapter of `config`, all of it, and never adapted by LoRA.

    PEFT does so with what is called classifier or score; some architectures have more, such as DistilBERT's
    pre_classifier, or call it otherwise.

    >>> from transformers import DistilBertConfig, DistilBertForSequenceClassification
    >>> size = dict(dim=8, hidden_dim=8, n_layers=1, n_heads=1, vocab_size=8)
    >>> config = LoraConfig(task_type="SEQ_CLS")
    >>> with_head(DistilBertForSequenceClassification(DistilBertConfig(**size)), config)
    >>> config.modules_to_save
    ['pre_classifier', 'classifier']
    """
    if config.task_type not in CLASSIFIERS:
        return
    bare, head = _bare(model), _head_modules(model)
    config.modules_to_save = list(dict.fromkeys([*(config.modules_to_save or ()), *head]))
    if config.target_modules == "all-linear":
        linear = (name for name, part in bare.named_modules() if isinstance(part, nn.Linear | Conv1D))
        config.target_modules = [name for name in linear if name.partition(".")[0] not in head]


def check_head(model: nn.Module, task_type: str | None) -> None:
    """Raise ActshiftError where a saved adapter was trained with another kind of head than the model has."""
    own = head_of(model)
    if task_type in get_args(TaskType) and own not in (None, task_type):
        raise ActshiftError(
            f"this adapter was trained with the head {task_type}, and {type(_bare(model)).__name__} has {own}; load "
            "the base with the head of the adapter."
        )


def share_head(model: nn.Module, other: nn.Module) -> None:
    """Give a classifier the weights of another one's head, in place; one that predicts tokens is left as it is.

    Raises ActshiftError where the two have different heads.
    """
    heads = [head_of(one) for one in (model, other)]
    if heads[0] != heads[1]:
        raise ActshiftError(f"The models have different heads, {heads[0]} and {heads[1]}; load both with the same one.")
    if heads[0] not in CLASSIFIERS:
        return
    for name in _head_modules(model):
        mine, others = _bare(model).get_submodule(name), _bare(other).get_submodule(name)
        try:
            mine.load_state_dict(others.state_dict())
        except RuntimeError as error:
            raise ActshiftError("The two models tell different numbers of classes; give versions of one.") from error


def _bare(model: nn.Module) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _head_modules(model: nn.Module) -> list[str]:
    """What a model has beside its body that holds parameters."""
    bare = _bare(model)
    body = getattr(bare, "base_model_prefix", "")
    return [name for name, part in bare.named_children() if name != body and any(True for _ in part.parameters())]


def saved_head(source: str) -> Head:
    """Return the head of the adapter in folder or hub repository `source`.

    The names of its classes are those in metrics.json, else LABEL_0, LABEL_1, ... as transformers calls them, as many
    as the saved head has rows. Raises ActshiftError where there is no adapter, or it lacks the head that it names.

    >>> saved_head("run")  # doctest: +SKIP
    Head(task_type='SEQ_CLS', labels=('negative', 'positive'))
    """
    config = read_json(source)
    task_type: Any = config.get("task_type")
    if task_type not in get_args(TaskType):
        return CAUSAL
    head = Head(task_type)
    if not head.classifies:
        return head
    classes = _classes(read_checkpoint(source), config.get("modules_to_save") or [], source)
    named = _named(source)
    return Head(task_type, named if len(named) == classes else tuple(f"LABEL_{index}" for index in range(classes)))


def name_classes(folder: Path, model: nn.Module) -> None:
    """Write the names of a classifier's classes beside the adapter in `folder`, where `saved_head` finds them."""
    head = Head(head_of(model) or "CAUSAL_LM")
    if head.classifies:
        head = Head(head.task_type, labels_of(_bare(model).config))
        write_whole(folder / METRICS, json.dumps({"head": asdict(head)}) + "\n")


def _named(source: str) -> tuple[str, ...]:
    try:
        values = json.loads(Path(fetch(source, METRICS)).read_text(encoding="utf-8"))
    except (ActshiftError, ValueError):
        return ()
    return tuple(values.get("head", {}).get("labels", ()))


def _classes(tensors: Checkpoint, modules: list[str], source: str) -> int:
    """The number of classes: the fewest rows of any map in the head, whose last one they are."""
    rows = [shape[0] for name, shape in tensors.shapes.items() if set(name.split(".")) & set(modules)]
    if not rows:
        raise ActshiftError(f"{source} was trained to tell classes, and holds no head that does; train it again.")
    return min(rows)
