"""Measure how far the two halves of a joint adapter do the same thing."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.analysis.capture import half_shifts
from actshift.analysis.figures import ELSEWHERE, INK, POST_BLOCK, label_axes
from actshift.analysis.sections import Section, SectionReport, dash
from actshift.orthogonality import chance_overlap, principal_cosines, span_dimensions
from actshift.tuner import steering_layers
from actshift.tuner.joint.constraint import full_tensor

DIRECTIONS = 8
NEGLIGIBLE = 1e-2  # a direction below this fraction of the largest singular value has less than 1e-4 of its energy
CLEARLY = 2  # an overlap counts as real from twice the chance value, because hidden states are not isotropic


@dataclass(frozen=True)
class Overlap:
    """The overlap of two subspaces of the residual stream.

    `mean` is the mean squared cosine of their principal angles, and `largest` the largest cosine. `chance` is the mean
    squared cosine of two random subspaces of the same dimensions.
    """

    mean: float
    largest: float
    chance: float


@dataclass(frozen=True)
class BlockRedundancy:
    """The overlaps of one block. An overlap is None if one of its sides is missing or zero.

    `read` compares the row space of W_down with col(B), where B is the LoRA-B of the block's MLP output map. `shift`
    compares the leading directions of the two shifts, and `cosine` is the mean cosine between them at one token.
    """

    block: int
    read: Overlap | None
    shift: Overlap | None
    cosine: float | None


@dataclass(frozen=True)
class Redundancy(SectionReport):
    """The redundancy of a joint adapter by block, measured on held-out tokens. It prints as a table."""

    blocks: tuple[BlockRedundancy, ...]
    tokens: int

    @property
    def read(self) -> float | None:
        """The overlap of what steering reads with what LoRA writes, averaged over blocks."""
        return _mean(block.read.mean for block in self.blocks if block.read)

    @property
    def shift(self) -> float | None:
        """The overlap of the leading directions of the shifts, averaged over blocks."""
        return _mean(block.shift.mean for block in self.blocks if block.shift)

    @property
    def cosine(self) -> float | None:
        """The cosine between the shifts at one token, averaged over blocks."""
        return _mean(block.cosine for block in self.blocks if block.cosine is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the means over blocks and all values, ready for JSON."""
        return {"read": self.read, "shift": self.shift, "cosine": self.cosine, **asdict(self)}

    @property
    def sections(self) -> tuple[Section, ...]:
        """The overlaps by block."""
        read, shift, cosine = (dash(value, ".3f") for value in (self.read, self.shift, self.cosine))
        rows = [(str(b.block), *_cells(b.read), *_cells(b.shift), dash(b.cosine, ".3f")) for b in self.blocks]
        section = Section(
            key="halves",
            title="Overlap of the two halves",
            how_to_read="An overlap is the mean squared cosine of principal angles, from 0 to 1; chance is the overlap "
            "of random subspaces.",
            columns=("block", "read cos²", "max cos", "chance", "shift cos²", "max cos", "chance", "token cos"),
            rows=(*rows, ("mean", read, "", "", shift, "", "", cosine)),
            advice=_advice(self),
            note="Read: the rows of W_down against col(B), that is what steering reads and LoRA writes. Shift: the "
            f"shifts of each half alone, on {self.tokens:,} tokens.",
            alt=f"Bars by block: on average the read overlap is {read} and the shift overlap {shift}.",
            plot=self._plot,
        )
        return (section,)

    def _plot(self, axes: Any) -> None:
        read = (-0.2, "read", POST_BLOCK, "what steering reads and LoRA writes", None)
        shift = (0.2, "shift", ELSEWHERE, "the shifts of each half alone", "chance")
        for side, kind, colour, label, chance_label in (read, shift):
            overlaps = {block.block + side: overlap for block in self.blocks if (overlap := getattr(block, kind))}
            axes.bar(list(overlaps), [overlap.mean for overlap in overlaps.values()], 0.36, color=colour, label=label)
            edges = [[center + half for center in overlaps] for half in (-0.18, 0.18)]
            chances = [overlap.chance for overlap in overlaps.values()]
            axes.hlines(chances, *edges, color=INK, linewidth=1.5, label=chance_label)
        axes.set_xticks([block.block for block in self.blocks])
        axes.set_ylim(0, 1)
        label_axes(axes, "block", "overlap")
        axes.legend(fontsize=8, frameon=False, loc="upper left")


def redundancy(model: Any, batches: Iterable[Mapping[str, Tensor]], tokens: int = 2048) -> Redundancy:
    """Measure how far the two halves of a model's active joint adapter do the same thing.

    For each block: the principal angles between the row space of W_down and col(B), where B is the LoRA-B of the MLP
    output map. Also the shifts `h_weights - h_base` and `h_activations - h_base` of the block's output, with one half
    active each: their cosine at each token, and the principal angles between up to 8 leading directions of each.
    Hidden states are not isotropic, so unrelated shifts can overlap more than random subspaces do. `batches` are
    keyword arguments of the model from held-out inputs, of which `tokens` tokens are used. The model is restored.

    Raises:
        ActshiftError: The model has no joint adapter, or `batches` have no tokens.

    Source: arXiv 2603.00425, joint adaptation; the measure is this project's, docs/method.md#redundancy.

    >>> print(redundancy(model, batches))  # doctest: +SKIP
    """
    weights, activations = half_shifts(model, batches, tokens)
    subspaces = _read_and_written(model)
    rows = tuple(
        BlockRedundancy(
            block,
            _overlap(*subspaces[block]) if block in subspaces else None,
            _overlap(_leading(of_weights), _leading(of_activations).T),
            _mean_cosine(of_weights, of_activations),
        )
        for block, (of_weights, of_activations) in enumerate(zip(weights, activations, strict=True))
    )
    return Redundancy(rows, len(weights[0]))


def _read_and_written(model: Any) -> dict[int, tuple[Tensor, Tensor]]:
    """Return, for each block, the rows that steering reads `[n, d]` and the columns that LoRA writes `[d, r]`."""
    collected: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for layer in steering_layers(model).values():
        for name in layer.constraints.keys() & set(layer.active_adapters):
            shift: Any = layer.lora_steer[name]
            rows, columns = collected.setdefault(layer.layer_index, ([], []))
            rows += [full_tensor(tensor.detach()) for tensor in shift.reads()]
            columns += [full_tensor(tensor.detach()) for tensor in layer.constraints[name].columns(name)]
    return {
        block: (torch.cat(rows).cpu(), torch.cat(columns, dim=1).cpu())
        for block, (rows, columns) in collected.items()
        if rows and columns
    }


def _overlap(rows: Tensor, columns: Tensor) -> Overlap | None:
    cosines = principal_cosines(rows, columns)
    if not len(cosines):
        return None
    chance = chance_overlap(span_dimensions(rows.mT), span_dimensions(columns), rows.shape[1])
    return Overlap(cosines.square().mean().item(), cosines[0].item(), chance)


def _leading(shift: Tensor) -> Tensor:
    """Return the leading principal directions of `shift [tokens, d]` as rows `[k, d]`; negligible ones are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the algorithm is randomised, and a report must be reproducible
        _, size, right = torch.svd_lowrank(shift.double(), q=min(4 * DIRECTIONS, *shift.shape), niter=4)
    return (right * (size > NEGLIGIBLE * size[0])).T[:DIRECTIONS]


def _mean_cosine(first: Tensor, second: Tensor) -> float | None:
    moved = (first.norm(dim=1) > 0) & (second.norm(dim=1) > 0)
    return F.cosine_similarity(first[moved].double(), second[moved].double()).mean().item() if moved.any() else None


def _mean(values: Iterable[float]) -> float | None:
    return fmean(known) if (known := list(values)) else None


def _cells(overlap: Overlap | None) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in astuple(overlap)) if overlap else ("–", "–", "–")


def _advice(report: Redundancy) -> str:
    sentences: list[str] = []
    for kind, overlap in (("read", report.read), ("shift", report.shift)):
        if overlap is None:
            continue
        chance = fmean(getattr(block, kind).chance for block in report.blocks if getattr(block, kind))
        clear = overlap > CLEARLY * chance
        if kind == "read":
            rule = "Train again with `--orthogonality read`" if clear else "Leave the rule as it is"
            advice = f"{rule}: steering reads {overlap:.3f} of what LoRA writes"
        elif clear:
            most = max(report.blocks, key=lambda block: block.shift.mean if block.shift else 0.0).block
            advice = "Try each half alone with `actshift eval --half`: their shifts overlap by "
            advice += f"{overlap:.2f}, most in block {most}"
        else:
            advice = f"Keep both halves: their shifts overlap by {overlap:.2f}"
        sentences.append(f"{advice}, and {chance:.2f} is chance.")
    return " ".join(sentences) or "Train the adapter first: no block has two halves to compare."
