"""The head of a classifier, which is trained beside any adapter and saved with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from peft import LoraConfig, PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.head import CAUSAL, Head, TaskType
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
    if config.task_type not in ("SEQ_CLS", "TOKEN_CLS"):
        return
    bare: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    body = getattr(bare, "base_model_prefix", "")
    head = [name for name, part in bare.named_children() if name != body and any(True for _ in part.parameters())]
    config.modules_to_save = list(dict.fromkeys([*(config.modules_to_save or ()), *head]))
    if config.target_modules == "all-linear":
        linear = (name for name, part in bare.named_modules() if isinstance(part, nn.Linear | Conv1D))
        config.target_modules = [name for name in linear if name.partition(".")[0] not in head]


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
