"""Score the choices of each row by their log-probabilities, as lm-eval-harness scores multiple choice."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.data.collate import pad_batch
from actshift.data.encode import IGNORE_INDEX, encode_completions
from actshift.evaluation.generation import batches, evaluation_mode, tracked
from actshift.loading import context_length
from actshift.tuner import steering_layers
from actshift.tuner.prompt_scope import prompt_lengths


def choice_completions(row: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the completion that each choice of a row would have, or None if the row has no choices to score.

    The completion of the row must be the text of a choice, or its letter. White space at its ends is kept.

    >>> choice_completions({"completion": " yes", "choices": ["no", "yes"]})
    {'no': ' no', 'yes': ' yes'}
    >>> choice_completions({"completion": " B", "choices": ["oak", "pear"]})
    {'A': ' A', 'B': ' B'}
    """
    choices = [str(choice).strip() for choice in row.get("choices") or ()]
    completion = row["completion"]
    text = completion.strip()
    if text not in choices:
        choices = list(ascii_uppercase[: len(choices)])
    if len(choices) < 2 or text not in choices:
        return None
    before, _, after = completion.partition(text)
    return {choice: before + choice + after for choice in choices}


@dataclass(frozen=True)
class _Candidate:
    """A choice as tokens: the ids of its prompt and of its completion, and its row."""

    row: int
    choice: str
    prompt: list[int]
    target: list[int]

    @property
    def context(self) -> list[int]:
        """The tokens that the model reads to predict every token of the completion."""
        return self.prompt + self.target[:-1]


def best_choices(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    batch_size: int = 16,
    *,
    rendered: bool = False,
    show_progress: bool = False,
) -> list[str] | None:
    """Return the choice of each row whose completion has the highest log-probability, or None without choices.

    The score of a choice is Σ log p(token | prompt, earlier tokens) over its completion, without an end token and
    without a division by its length. Choices that start with the same tokens share forward passes.

    Args:
        rows: Rows with `prompt`, `completion` and `choices`.
        rendered: Whether a chat template has rendered the prompts, which then contain all special tokens.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> row = {"prompt": "MAX 3 7 =", "completion": " 7", "choices": ["3", "7"]}
        >>> best_choices(model, tokenizer, [row]) in (["3"], ["7"])
        True
    """
    completions = [choice_completions(row) for row in rows]
    if any(completion is None for completion in completions):
        return None
    candidates = _candidates(model, tokenizer, rows, completions, rendered)  # type: ignore[arg-type]
    scores = _log_probabilities(model, tokenizer, candidates, batch_size, show_progress)
    best: list[tuple[float, str]] = [(float("-inf"), "")] * len(rows)
    for candidate, score in zip(candidates, scores, strict=True):
        if score > best[candidate.row][0]:
            best[candidate.row] = (score, candidate.choice)
    return [choice for _, choice in best]


def _candidates(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[dict[str, str]],
    rendered: bool,
) -> list[_Candidate]:
    """Return the choices of all rows; a prompt that is too long for the context loses its start."""
    places = [(number, choice) for number, options in enumerate(completions) for choice in options]
    prompts = [rows[number]["prompt"] for number, _ in places]
    texts = [completions[number][choice].rstrip() for number, choice in places]
    context = context_length(model.config, tokenizer)
    candidates: list[_Candidate] = []
    for (number, choice), example in zip(places, encode_completions(prompts, texts, tokenizer, rendered), strict=True):
        start = example["labels"].count(IGNORE_INDEX)
        ids = example["input_ids"][:-1]  # without the end token
        prompt = ids[:start][-(context - len(ids) + start) :]
        candidates.append(_Candidate(number, choice, prompt, ids[start:]))
    return candidates


def _log_probabilities(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    candidates: Sequence[_Candidate],
    batch_size: int,
    show_progress: bool,
) -> list[float]:
    """Return the log-probability of each candidate's completion, in float32."""
    readers = _readers(candidates)
    contexts = [candidates[members[0]].context for members in readers]
    scores = [0.0] * len(candidates)
    with evaluation_mode(model):
        for batch in tracked(batches(contexts, batch_size), "Scoring choices", show_progress):
            prompts = [len(candidates[readers[index][0]].prompt) for index in batch]
            logits, first = _logits(model, tokenizer, [contexts[index] for index in batch], prompts)
            for place, index in enumerate(batch):
                start = prompts[place] - 1 - first
                for member in readers[index]:
                    target = torch.tensor(candidates[member].target, device=logits.device)
                    log_p = logits[place, start : start + len(target)].float().log_softmax(dim=-1)
                    scores[member] = float(log_p.gather(1, target[:, None]).sum())
    return scores


def _readers(candidates: Sequence[_Candidate]) -> list[list[int]]:
    """Return groups of candidates that one forward pass scores: its context starts with the contexts of all others.

    The first candidate of a group has the longest context.
    """
    groups: dict[int, list[list[int]]] = {}  # of each row
    for index in sorted(range(len(candidates)), key=lambda index: -len(candidates[index].target)):
        context, of_row = candidates[index].context, groups.setdefault(candidates[index].row, [])
        group = next((group for group in of_row if candidates[group[0]].context[: len(context)] == context), None)
        if group is None:
            of_row.append([index])
        else:
            group.append(index)
    return [group for of_row in groups.values() for group in of_row]


def _logits(
    model: Any, tokenizer: PreTrainedTokenizerBase, contexts: Sequence[list[int]], prompts: Sequence[int]
) -> tuple[Tensor, int]:
    """Return the logits `[batch, positions, vocabulary]` from the end of the shortest prompt on, and that position."""
    batch = pad_batch([{"input_ids": ids} for ids in contexts], tokenizer)
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
    width, first = inputs["input_ids"].shape[1], min(prompts) - 1
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps = "logits_to_keep" in inspect.signature(base.forward).parameters
    scope: AbstractContextManager[Any] = prompt_lengths(model, prompts) if steering_layers(model) else nullcontext()
    with scope:
        logits = model(**inputs, **({"logits_to_keep": width - first} if keeps else {})).logits
    return logits[:, -(width - first) :], first
