"""Measure what sets two sets of rows apart after every block, and steer by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from actshift.adapters import Vector
from actshift.analysis.batches import Rows
from actshift.analysis.capture import inference
from actshift.analysis.contrast.report import ContrastReport, LayerContrast
from actshift.analysis.contrast.states import States, check_token, form_of, ids_of, row_batches, row_states
from actshift.analysis.progress import ProgressCallback, progress_counter
from actshift.errors import ActshiftError, did_you_mean
from actshift.sites import resolve
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices
from actshift.tuner import SteeringConfig, attach, steering_layers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


Direction = Callable[[Tensor, Tensor], Tensor]
FOLDS = 5


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = mean(positive) - mean(negative), `[d]`, of activations `[rows, d]` each; they need not be paired.

    Source: contrastive activation addition, arXiv 2312.06681.

    >>> mean_difference(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    tensor([1.5000, 0.5000])
    """
    return positive.mean(0) - negative.mean(0)


def principal_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = u uᵀ m, `[d]`: the mean m of the pairs' differences, on their first principal axis u.

    u maximises Σ_i (u · (p_i - n_i))² over unit vectors. The differences are not centred, which would take away what
    they have in common. v points from negative to positive whatever the sign of u, and is as long as the mean
    projections on u are apart. Row i of both `[rows, d]` is a pair.

    Source: representation reading by PCA of pairs' differences, arXiv 2310.01405 §3.1; the length is [ours].

    >>> principal_difference(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    tensor([2., 0.])
    """
    differences = (positive - negative).double()
    wide = differences.shape[0] < differences.shape[1]
    # The first eigenvector of the smaller of D Dᵀ and Dᵀ D, in place of a full decomposition of D.
    gram = differences @ differences.T if wide else differences.T @ differences
    axis = torch.linalg.eigh(gram).eigenvectors[:, -1]
    axis = differences.T @ axis if wide else axis
    axis = axis / axis.norm().clamp_min(torch.finfo(axis.dtype).tiny)
    return (axis * (axis @ differences.mean(0))).to(positive.dtype)


METHODS: dict[str, Direction] = {"mean": mean_difference, "pca": principal_difference}
PAIRED = ("pca",)
"""The methods that take row i of both sides as a pair."""


def direction_of(method: str) -> Direction:
    """Return the function that finds the direction.

    Raises ActshiftError for an unknown method.

    >>> direction_of("mean") is mean_difference
    True
    """
    if method not in METHODS:
        raise ActshiftError(
            f"There is no method {method!r}{did_you_mean(method, METHODS)}; there are {' and '.join(METHODS)}."
        )
    return METHODS[method]


def separation(positive: Tensor, negative: Tensor, direction: Direction) -> float:
    """Return the share of rows that the direction puts on their side of a threshold, both sides counted alike.

    Every fifth row of both sides is left out in turn (fewer folds where there are fewer rows); the direction and the
    threshold, halfway between the mean projections, are those of the other rows. 1 is every row, 0.5 is chance.

    >>> separation(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.0], [-1.0]]), mean_difference)
    1.0
    """
    folds = min(FOLDS, len(positive), len(negative))
    right = torch.zeros(2)
    for fold in range(folds):
        out, other = _fold(len(positive), fold, folds), _fold(len(negative), fold, folds)
        v = direction(positive[~out], negative[~other])
        threshold = (positive[~out].mean(0) + negative[~other].mean(0)) @ v / 2
        right[0] += (positive[out] @ v > threshold).sum()
        right[1] += (negative[other] @ v < threshold).sum()
    return ((right[0] / len(positive) + right[1] / len(negative)) / 2).item()


def _fold(rows: int, fold: int, folds: int) -> Tensor:
    return torch.arange(rows) % folds == fold


LEAST = 1e-6
"""A difference of less than this, beside the activations, is rounding."""


@dataclass(frozen=True)
class Contrast:
    """A vector `[d]` for every block, float32 on the CPU, and what was found on the way.

    `blocks` is the name of the list of blocks, where it was given.
    """

    vectors: tuple[Tensor, ...]
    report: ContrastReport
    blocks: str | None = None

    def attach(self, model: nn.Module, layers: Sequence[int] | None = None, adapter_name: str = "default") -> Any:
        """Return the model with a vector adapter after the blocks `layers`, by default the middle one.

        At strength s it shifts every token's h by s·v. Each vector is the whole difference after its block, so those
        of several blocks add up, and need less strength than one; docs/results/vector.md has both.

        Raises ActshiftError for layers that the model does not have.

        >>> model.save_pretrained("french")  # doctest: +SKIP
        """
        count, kind = len(self.vectors), type(unwrap(model)).__name__
        chosen = block_indices([middle(count)] if layers is None else layers, count, kind)
        config = SteeringConfig(adapter=Vector(), layers=chosen, blocks=self.blocks, task_type="CAUSAL_LM")
        steered = attach(model, config, adapter_name)
        for layer in steering_layers(steered).values():
            if layer.site == "post_block" and adapter_name in layer.lora_steer:
                vector: Any = layer.lora_steer[adapter_name].vector
                vector.data.copy_(self.vectors[layer.layer_index])
        return steered


def contrast(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    positive: Rows | Dataset,
    negative: Rows | Dataset,
    method: str = "mean",
    token: str = "last",
    batch_size: int = 8,
    max_length: int = 512,
    blocks: str | None = None,
    heard: ProgressCallback = lambda phase, done, total: None,
) -> Contrast:
    """Return, for every block, the vector from the activations of `negative` rows to those of `positive` ones.

    `method` is "mean", the difference of means, or "pca", the first principal axis of the differences of pairs, row by
    row, with the length of the mean difference along it; strength 1 is then, after one block, the step from the one
    side to the other. `token` is where: "last", a row's last token, or "mean", the mean over its tokens; of a prompt
    with its completion only the completion's tokens count. Rows are texts, or have prompt + completion, messages or
    text. Memory for one vector a row and block is taken, 4·rows·blocks·d bytes. Nothing is trained, and the model is
    left as it was. `heard` is told the phase, and how many of its steps are done.

    Raises ActshiftError for an unknown method or token, fewer than two rows, rows of two kinds or too long, rows that
    do not pair where pairs are needed, and sides that are the same.
    Source: arXiv 2312.06681 (mean), arXiv 2310.01405 §3.1 (pca).

    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> french, english = ["anna a sept chats .", "ben a dix clés ."], ["anna has seven cats .", "ben has ten keys ."]
    >>> found = contrast(model, tokenizer, french, english)
    >>> steered = found.attach(model, layers=[2])
    """
    direction = direction_of(method)
    check_token(token)
    _check_sides(positive, negative, method)
    ahead = row_batches(positive, "positive", tokenizer, batch_size, max_length)
    behind = row_batches(negative, "negative", tokenizer, batch_size, max_length)
    notes = _notes(ids_of(ahead), ids_of(behind), tokenizer, token)
    modules = [host.module for host in resolve(model, blocks=blocks)]
    step = progress_counter(heard, "Forward passes", len(ahead) + len(behind))
    with inference(model):
        p, n = (row_states(model, batches, modules, token, step) for batches in (ahead, behind))
    vectors = tuple(direction(one, other) for one, other in zip(p.at, n.at, strict=True))
    base: Any = unwrap(model)
    report = ContrastReport(
        model=getattr(base.config, "name_or_path", "") or type(base).__name__,
        method=method,
        token=token,
        positive=len(positive),
        negative=len(negative),
        layers=tuple(_layer(at, v, p, n, separation(p.at[at], n.at[at], direction)) for at, v in enumerate(vectors)),
        notes=notes,
    )
    return Contrast(vectors, report, blocks)


def middle(blocks: int) -> int:
    """Return the block that is steered unless others are named: the middle one.

    There the direction works without what it was not asked for: early ones break what comes after, the last one hardly
    acts (docs/results/vector.md). Source: arXiv 2312.06681 finds its best ones a little before the middle.

    >>> middle(32), middle(6)
    (16, 3)
    """
    return blocks // 2


def _layer(at: int, vector: Tensor, positive: States, negative: States, separated: float) -> LayerContrast:
    residual = torch.cat([positive.norm[at], negative.norm[at]]).mean().item()
    if mean_difference(positive.at[at], negative.at[at]).norm() <= LEAST * residual:
        raise ActshiftError(
            f"After block {at} the positive and the negative rows are the same, so there is no direction between them; "
            "give rows that differ, or look at the mean over tokens."
        )
    return LayerContrast(at, vector.norm().item(), residual, separated)


def _check_sides(positive: Rows | Dataset, negative: Rows | Dataset, method: str) -> None:
    for side, rows in (("positive", positive), ("negative", negative)):
        if len(rows) < 2:
            raise ActshiftError(
                f"There {'is one' if len(rows) else 'is no'} {side} row; two are the least that a direction can be "
                "found and checked on, and some dozens are better."
            )
    one, other = form_of(positive, "positive"), form_of(negative, "negative")
    if one != other:
        raise ActshiftError(
            f"The positive rows have {' and '.join(one)}, the negative ones {' and '.join(other)}; give both in one "
            "form, so that the tokens compared are of one kind."
        )
    if method in PAIRED and len(positive) != len(negative):
        raise ActshiftError(
            f"Method {method} pairs row by row, and there are {len(positive)} positive and {len(negative)} negative "
            "rows; give as many of both, or use the method mean."
        )


def _notes(
    positive: list[list[int]], negative: list[list[int]], tokenizer: PreTrainedTokenizerBase, token: str
) -> tuple[str, ...]:
    if sorted(positive) == sorted(negative):
        raise ActshiftError("The positive and the negative rows are the same, so their difference is zero.")
    ends, others = ({ids[-2] for ids in side} for side in (positive, negative))  # the last one ends every row
    if token == "mean" or ends & others:
        return ()
    one, other = (tokenizer.decode([min(side)]) for side in (ends, others))
    return (
        f"No last token is on both sides (such as {one!r} and {other!r}), so the vectors may be of these words and no "
        "more; end the rows of both sides alike, or look at the mean over tokens.",
    )


CARD = """\
---
library_name: peft
tags: [actshift, steering]
---

# Steering vector for {model}

Adds a vector to the residual stream of `{model}` after block {blocks}, which points from `{negative}` to `{positive}`.
Nothing was trained.

```
{report}
```

Strength 1 is the step from the one side to the other, 0 the base model, -1 the other way:
`actshift generate --model {model} --adapter FOLDER --strength 1 --prompt "..."`
"""


def card(report: ContrastReport, layers: Sequence[int], positive: str, negative: str) -> str:
    """Return the README.md of an adapter that steers after `layers`, found on rows of these names."""
    blocks = ", ".join(map(str, layers))
    return CARD.format(model=report.model, blocks=blocks, positive=positive, negative=negative, report=report)
