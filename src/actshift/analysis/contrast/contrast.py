"""Find the direction between two sets of rows after every block, and steer along it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from actshift.adapters import Ablation, Adapter, GatedVector, Vector
from actshift.analysis.batches import Rows
from actshift.analysis.capture import ProgressCallback, inference, model_name, progress_counter
from actshift.analysis.contrast.report import ContrastReport, LayerContrast
from actshift.analysis.contrast.states import States, columns_read, row_batches, row_states, token_ids
from actshift.errors import ActshiftError, check_choice
from actshift.markdown import markdown_block, markdown_code, markdown_text
from actshift.sites import resolve
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices
from actshift.tuner import SteeringConfig, attach, steering_layers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Direction = Callable[[Tensor, Tensor], Tensor]
FOLDS = 5
SHIFTS: dict[str, type[Adapter]] = {"add": Vector, "ablate": Ablation, "gate": GatedVector}
NEGLIGIBLE = 1e-6  # a mean difference below this share of the activations' norm is a rounding error


@dataclass(frozen=True)
class Contrast:
    """One vector `[d]` per block, float32 on the CPU, and a report. `blocks` names the list of blocks."""

    vectors: tuple[Tensor, ...]
    report: ContrastReport
    blocks: str | None = None

    def attach(
        self,
        model: nn.Module,
        layers: Sequence[int] | None = None,
        adapter_name: str = "default",
        shift: str = "add",
    ) -> Any:
        """Return the model with an adapter after the blocks `layers`, by default the middle one.

        At strength s every token's h becomes

            add:     h + s·v
            ablate:  h - s·v̂ v̂ᵀ h, with v̂ = v / ‖v‖
            gate:    h + s·|cos(h, v)|·v

        Each vector is the whole difference after its block, so several blocks need less strength. Early blocks damage
        later computations, and the last one has little effect.

        Raises:
            ActshiftError: The model has no such layer, or there is no such shift.

        Source: docs/results/vector.md, docs/method.md#ablation, docs/method.md#gated-vector.
        """
        check_choice("shift", shift, tuple(SHIFTS))
        count = len(self.vectors)
        chosen = block_indices([count // 2] if layers is None else layers, count, type(unwrap(model)).__name__)
        config = SteeringConfig(adapter=SHIFTS[shift](), layers=chosen, blocks=self.blocks, task_type="CAUSAL_LM")
        steered = attach(model, config, adapter_name)
        for layer in steering_layers(steered).values():
            if layer.site == "post_block" and adapter_name in layer.lora_steer:
                module: Any = layer.lora_steer[adapter_name]
                module.set_direction(self.vectors[layer.layer_index])
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
    on_progress: ProgressCallback = lambda phase, done, total: None,
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
        token: "last" for the activation at the last token of a row, "mean" for the mean over its tokens.
        max_length: Longest row in tokens. Longer rows are an error.

    Raises:
        ActshiftError: The method or token is unknown, a side has fewer than two rows, the rows differ in form, are too
            long, do not pair or are the same on both sides, or an activation is not finite.

    Source: arXiv 2312.06681 (mean), arXiv 2310.01405 §3.1 (pca); docs/method.md#contrast-vectors.

    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> french, english = ["anna a sept chats .", "ben a dix clés ."], ["anna has seven cats .", "ben has ten keys ."]
    >>> result = contrast(model, tokenizer, french, english)
    >>> steered = result.attach(model, layers=[2])
    """
    check_choice("method", method, tuple(METHODS))
    check_choice("token", token, ("last", "mean"))
    sides = {"positive": positive, "negative": negative}
    _check_sides(sides, method)
    batches = [row_batches(rows, side, tokenizer, batch_size, max_length) for side, rows in sides.items()]
    notes = _notes([token_ids(of_side) for of_side in batches], tokenizer, token)
    modules = [host.module for host in resolve(model, blocks=blocks)]
    step = progress_counter(on_progress, "Forward passes", sum(map(len, batches)))
    with inference(model):
        states = [row_states(model, of_side, modules, token, step) for of_side in batches]
    vectors = tuple(map(METHODS[method], *(side.by_block for side in states)))
    layers = tuple(_layer_contrast(layer, v, states, METHODS[method]) for layer, v in enumerate(vectors))
    counts, name = (len(positive), len(negative)), model_name(unwrap(model))
    return Contrast(vectors, ContrastReport(name, method, token, *counts, layers, notes), blocks)


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
    centred, because that would remove their common part. The sign of u does not matter.

    Source: arXiv 2310.01405 §3.1; the length is this project's, docs/method.md#contrast-vectors.

    >>> principal_difference(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    tensor([2., 0.])
    """
    differences = (positive - negative).double()
    wide = differences.shape[0] < differences.shape[1]
    # The first eigenvector of the smaller of D Dᵀ and Dᵀ D is cheaper than an SVD of D.
    axis = torch.linalg.eigh(differences @ differences.T if wide else differences.T @ differences).eigenvectors[:, -1]
    axis = differences.T @ axis if wide else axis
    axis = axis / axis.norm().clamp_min(torch.finfo(axis.dtype).tiny)
    return (axis * (axis @ differences.mean(0))).to(positive.dtype)


METHODS: dict[str, Direction] = {"mean": mean_difference, "pca": principal_difference}


def separation(positive: Tensor, negative: Tensor, direction: Direction) -> float:
    """Return the share of validation rows `[rows, d]` on their side of a threshold on h · v, as the mean of both sides.

    Rows are cross-validated in five folds, or fewer if there are fewer rows. The vector and the threshold, halfway
    between the mean projections, come from the other folds. 1 is perfect, 0.5 is chance.

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


def _layer_contrast(layer: int, vector: Tensor, sides: Sequence[States], direction: Direction) -> LayerContrast:
    p, n = (side.by_block[layer] for side in sides)
    residual = torch.cat([side.norms[layer] for side in sides]).mean().item()
    if mean_difference(p, n).norm() <= NEGLIGIBLE * residual:
        same = f"After block {layer} the positive and the negative rows are the same, so there is no direction"
        raise ActshiftError(f"{same}; give rows that differ, or use the mean over tokens.")
    return LayerContrast(layer, vector.norm().item(), residual, separation(p, n, direction))


def _check_sides(sides: Mapping[str, Rows | Dataset], method: str) -> None:
    for side, rows in sides.items():
        if len(rows) < 2:
            count = "is one" if len(rows) else "is no"
            raise ActshiftError(f"There {count} {side} row; give at least two, and better a few dozen.")
    positive, negative = (" and ".join(columns_read(rows, side)) for side, rows in sides.items())
    if positive != negative:
        found = f"The positive rows have {positive}, the negative ones {negative}"
        raise ActshiftError(f"{found}; give both in one form, because tokens of different roles cannot be compared.")
    if method == "pca" and len(sides["positive"]) != len(sides["negative"]):
        counts = " and ".join(f"{len(rows)} {side}" for side, rows in sides.items())
        raise ActshiftError(f"Method pca pairs row by row, and there are {counts} rows; use as many, or method mean.")


def _notes(sides: Sequence[list[list[int]]], tokenizer: PreTrainedTokenizerBase, token: str) -> tuple[str, ...]:
    if sorted(sides[0]) == sorted(sides[1]):
        raise ActshiftError("The positive and the negative rows are the same, so their difference is zero.")
    ends = [{ids[-2] for ids in side} for side in sides]  # ids[-1] is the end of text
    if token == "mean" or set.intersection(*ends):
        return ()
    last_p, last_n = (tokenizer.decode([min(ids)]) for ids in ends)
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

{verb} the residual stream of {code} after block {blocks}, which points from {negative} to {positive}.
Nothing was trained.

{report}

{strength}
{command}
"""
VERBS = {
    "add": "Adds a vector to",
    "ablate": "Removes a direction from",
    "gate": "Adds a vector, scaled by its cosine with the stream, to",
}
STRENGTHS = {
    "add": "Strength 1 is the step from the one side to the other, 0 is the base model, and -1 is the opposite step:",
    "ablate": "Strength 1 removes the direction, 0 is the base model, and between them a share is removed:",
    "gate": "Strength 1 adds up to the step from the one side to the other, and 0 is the base model:",
}


def card(
    report: ContrastReport,
    layers: Sequence[int],
    positive: str,
    negative: str,
    shift: str = "add",
    strength: float = 1.0,
    calibration: str | None = None,
) -> str:
    """Return the README.md of a vector adapter after the blocks `layers`; the rows came from `positive`, `negative`.

    `strength` is the one saved with the adapter, and `calibration` the measurement that it comes from.
    """
    blocks = ", ".join(map(str, layers))
    command = f"actshift generate --model {shlex.quote(report.model)} --adapter FOLDER --strength {strength:.4g}"
    calibrated = f"Calibrated, and saved as the default: {calibration}.\n\n" if calibration else ""
    return CARD.format(
        model=markdown_text(report.model),
        code=markdown_code(report.model),
        blocks=blocks,
        positive=markdown_code(positive),
        negative=markdown_code(negative),
        report=markdown_block(str(report)),
        verb=VERBS[shift],
        strength=calibrated + STRENGTHS[shift],
        command=markdown_code(f'{command} --prompt "..."'),
    )
