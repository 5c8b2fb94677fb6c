"""Find the direction between two sets of rows after every block, and steer along it."""

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
from actshift.analysis.contrast.states import States, columns_read, row_batches, row_states, token_ids
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
NEGLIGIBLE = 1e-6
"""A mean difference below this share of the activations' norm is a rounding error."""


@dataclass(frozen=True)
class Contrast:
    """One vector `[d]` per block, float32 on the CPU, and a report. `blocks` names the list of blocks."""

    vectors: tuple[Tensor, ...]
    report: ContrastReport
    blocks: str | None = None

    def attach(self, model: nn.Module, layers: Sequence[int] | None = None, adapter_name: str = "default") -> Any:
        """Return the model with a vector adapter after the blocks `layers`, by default the middle one.

        At strength s every token's h becomes h + s·v. Each vector is the whole difference after its block, so the
        vectors of several blocks add up and need less strength; docs/results/vector.md compares both.

        Raises:
            ActshiftError: The model has no such layer.
        """
        count = len(self.vectors)
        chosen = block_indices([middle(count)] if layers is None else layers, count, type(unwrap(model)).__name__)
        config = SteeringConfig(adapter=Vector(), layers=chosen, blocks=self.blocks, task_type="CAUSAL_LM")
        steered = attach(model, config, adapter_name)
        for layer in steering_layers(steered).values():
            if layer.site == "post_block" and adapter_name in layer.lora_steer:
                shift: Any = layer.lora_steer[adapter_name]
                shift.vector.data.copy_(self.vectors[layer.layer_index])
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
    """Find one vector `[d]` per block that points from the activations of `negative` to `positive` rows.

    With p_i and n_i `[d]` the activations of the rows after a block, and u the first principal axis of p_i - n_i,

        mean:  v = mean_i p_i - mean_i n_i
        pca:   v = u uᵀ mean_i (p_i - n_i)

    in float32. At strength 1 after one block, v is the step from the negative to the positive side. Nothing is trained,
    and the model does not change. Memory is 4·rows·blocks·d bytes.

    Args:
        positive: At least two texts, or rows with prompt + completion, messages or text. Of a prompt with its
            completion only the completion's tokens count.
        negative: Rows of the same form. For "pca", row i of both sides is a pair.
        method: "mean" or "pca".
        token: "last" for the activation at the last token of a row, "mean" for the mean over its tokens.
        max_length: Longest row in tokens. Longer rows are an error.
        blocks: Name of the module list of blocks, if it cannot be found.
        heard: Called with the phase, its finished steps and the total number of steps.

    Raises:
        ActshiftError: The method or token is unknown, a side has fewer than two rows, the rows differ in form, are too
            long or do not pair, both sides are the same, or an activation is not finite.

    Source: arXiv 2312.06681 (mean), arXiv 2310.01405 §3.1 (pca); docs/method.md#contrast-vectors.

    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> french, english = ["anna a sept chats .", "ben a dix clés ."], ["anna has seven cats .", "ben has ten keys ."]
    >>> result = contrast(model, tokenizer, french, english)
    >>> steered = result.attach(model, layers=[2])
    """
    _check_options(method, token)
    _check_sides(positive, negative, method)
    direction = METHODS[method]
    batches = [
        row_batches(rows, side, tokenizer, batch_size, max_length)
        for rows, side in ((positive, "positive"), (negative, "negative"))
    ]
    notes = _notes(token_ids(batches[0]), token_ids(batches[1]), tokenizer, token)
    modules = [host.module for host in resolve(model, blocks=blocks)]
    step = progress_counter(heard, "Forward passes", sum(map(len, batches)))
    with inference(model):
        p, n = (row_states(model, of_side, modules, token, step) for of_side in batches)
    vectors = tuple(map(direction, p.by_block, n.by_block))
    base: Any = unwrap(model)
    report = ContrastReport(
        model=getattr(base.config, "name_or_path", "") or type(base).__name__,
        method=method,
        token=token,
        positive=len(positive),
        negative=len(negative),
        layers=tuple(_layer_contrast(layer, v, p, n, direction) for layer, v in enumerate(vectors)),
        notes=notes,
    )
    return Contrast(vectors, report, blocks)


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = mean(positive) - mean(negative), `[d]`, of activations `[rows, d]`, which need not be paired.

    Source: contrastive activation addition, arXiv 2312.06681.

    >>> mean_difference(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    tensor([1.5000, 0.5000])
    """
    return positive.mean(0) - negative.mean(0)


def principal_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = u uᵀ m `[d]`: the mean m of the differences of pairs, projected on their first principal axis u.

    u maximises Σ_i (u · (p_i - n_i))² over unit vectors; row i of both `[rows, d]` is a pair. The differences are not
    centred, because that would remove their common part. The sign of u does not matter: v points from negative to
    positive.

    Source: PCA of the differences of pairs, arXiv 2310.01405 §3.1; the length is this project's,
    docs/method.md#contrast-vectors.

    >>> principal_difference(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    tensor([2., 0.])
    """
    differences = (positive - negative).double()
    wide = differences.shape[0] < differences.shape[1]
    # The first eigenvector of the smaller of D Dᵀ and Dᵀ D is cheaper than an SVD of D.
    gram = differences @ differences.T if wide else differences.T @ differences
    axis = torch.linalg.eigh(gram).eigenvectors[:, -1]
    axis = differences.T @ axis if wide else axis
    axis = axis / axis.norm().clamp_min(torch.finfo(axis.dtype).tiny)
    return (axis * (axis @ differences.mean(0))).to(positive.dtype)


METHODS: dict[str, Direction] = {"mean": mean_difference, "pca": principal_difference}
PAIRED = ("pca",)
"""Methods that compare row i of both sides."""


def separation(positive: Tensor, negative: Tensor, direction: Direction) -> float:
    """Return the share of validation rows on their side of a threshold on h · v, as the mean of both sides.

    The rows of both sides `[rows, d]` are cross-validated in five folds, or fewer if there are fewer rows. The vector
    and the threshold, halfway between the mean projections, come from the other folds. 1 is perfect, 0.5 is chance.

    >>> separation(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.0], [-1.0]]), mean_difference)
    1.0
    """
    folds = min(FOLDS, len(positive), len(negative))
    correct = torch.zeros(2)
    for fold in range(folds):
        out_p, out_n = (torch.arange(len(side)) % folds == fold for side in (positive, negative))
        v = direction(positive[~out_p], negative[~out_n])
        threshold = (positive[~out_p].mean(0) + negative[~out_n].mean(0)) @ v / 2
        correct[0] += (positive[out_p] @ v > threshold).sum()
        correct[1] += (negative[out_n] @ v < threshold).sum()
    return ((correct[0] / len(positive) + correct[1] / len(negative)) / 2).item()


def middle(blocks: int) -> int:
    """Return the default block to steer: the middle one.

    There the vector changes the text without side effects. Early blocks damage later computations, and the last one has
    little effect (docs/results/vector.md). Source: arXiv 2312.06681 finds its best blocks a little before the middle.

    >>> middle(32), middle(6)
    (16, 3)
    """
    return blocks // 2


def _layer_contrast(
    layer: int, vector: Tensor, positive: States, negative: States, direction: Direction
) -> LayerContrast:
    p, n = positive.by_block[layer], negative.by_block[layer]
    residual = torch.cat([positive.norms[layer], negative.norms[layer]]).mean().item()
    if mean_difference(p, n).norm() <= NEGLIGIBLE * residual:
        raise ActshiftError(
            f"After block {layer} the positive and the negative rows are the same, so there is no direction between "
            "them; give rows that differ, or use the mean over tokens."
        )
    return LayerContrast(layer, vector.norm().item(), residual, separation(p, n, direction))


def _check_options(method: str, token: str) -> None:
    for option, value, allowed in (("method", method, tuple(METHODS)), ("token", token, ("last", "mean"))):
        if value not in allowed:
            raise ActshiftError(
                f"There is no {option} {value!r}{did_you_mean(value, allowed)}; use {' or '.join(allowed)}."
            )


def _check_sides(positive: Rows | Dataset, negative: Rows | Dataset, method: str) -> None:
    for side, rows in (("positive", positive), ("negative", negative)):
        if len(rows) < 2:
            raise ActshiftError(
                f"There {'is one' if len(rows) else 'is no'} {side} row; give at least two, and better a few dozen."
            )
    columns, other = columns_read(positive, "positive"), columns_read(negative, "negative")
    if columns != other:
        raise ActshiftError(
            f"The positive rows have {' and '.join(columns)}, the negative ones {' and '.join(other)}; give both in "
            "one form, because tokens of different roles cannot be compared."
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
    ends_p, ends_n = ({ids[-2] for ids in side} for side in (positive, negative))  # ids[-1] is the end of text
    if token == "mean" or ends_p & ends_n:
        return ()
    last_p, last_n = (tokenizer.decode([min(ends)]) for ends in (ends_p, ends_n))
    return (
        f"The two sides share no last token (such as {last_p!r} and {last_n!r}), so the vectors may describe these "
        "words only; end the rows of both sides alike, or use the mean over tokens.",
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

Strength 1 is the step from the one side to the other, 0 is the base model, and -1 is the opposite step:
`actshift generate --model {model} --adapter FOLDER --strength 1 --prompt "..."`
"""


def card(report: ContrastReport, layers: Sequence[int], positive: str, negative: str) -> str:
    """Return the README.md of a vector adapter after the blocks `layers`; the rows came from `positive`, `negative`."""
    blocks = ", ".join(map(str, layers))
    return CARD.format(model=report.model, blocks=blocks, positive=positive, negative=negative, report=report)
