"""Whether the two halves of a joint adapter learnt the same thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.analysis.capture import shifts_alone
from actshift.analysis.render import ELSEWHERE, INK, POST_BLOCK, Section, blocks, finish, new_figure
from actshift.orthogonality import chance_overlap, principal_cosines, span_dimensions
from actshift.tuner import steering_layers
from actshift.tuner.joint.constraint import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DIRECTIONS = 8
NEGLIGIBLE = 1e-2
"""A principal direction under this share of the first one's singular value holds less than 1e-4 of its energy."""


@dataclass(frozen=True)
class Overlap:
    """How two subspaces of the residual stream lie: `mean` squared and `largest` cosine of their principal angles.

    `chance` is the mean squared cosine of two random subspaces of the same dimensions: what `mean` must exceed.
    """

    mean: float
    largest: float
    chance: float


@dataclass(frozen=True)
class BlockRedundancy:
    """One block: what the adapter reads beside what LoRA wrote, and the shifts that each half alone makes.

    `read` is the overlap of the row space of W_down with col(B) of the block's MLP output map, `shift` that of the
    leading directions of both shifts, and `cosine` the mean over tokens of the cosine between them. None where there
    is nothing to compare: no W_down, no LoRA there, or a half that shifts nothing.
    """

    block: int
    read: Overlap | None
    shift: Overlap | None
    cosine: float | None


@dataclass(frozen=True)
class Redundancy:
    """The redundancy of a joint adapter, block by block, measured on `tokens` held-out tokens; prints as a table."""

    blocks: tuple[BlockRedundancy, ...]
    tokens: int

    @property
    def read(self) -> float | None:
        """The mean over blocks of the mean squared cosine between what is read and what was written."""
        return _mean(block.read.mean for block in self.blocks if block.read)

    @property
    def shift(self) -> float | None:
        """The mean over blocks of the mean squared cosine between the shifts' leading directions."""
        return _mean(block.shift.mean for block in self.blocks if block.shift)

    @property
    def cosine(self) -> float | None:
        """The mean over blocks of the mean cosine between the shifts at one token."""
        return _mean(block.cosine for block in self.blocks if block.cosine is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure, ready for JSON."""
        return {"read": self.read, "shift": self.shift, "cosine": self.cosine, **asdict(self)}

    def __str__(self) -> str:
        heads = ["block", "read cos²", "max cos", "chance", "shift cos²", "max cos", "chance", "token cos"]
        body = [[str(one.block), *_figures(one.read), *_figures(one.shift), _figure(one.cosine)] for one in self.blocks]
        means = ["mean", _figure(self.read), "", "", _figure(self.shift), "", "", _figure(self.cosine)]
        widths = [max(map(len, column)) for column in zip_longest(heads, *body, means, fillvalue="")]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (heads, *body, means)]  # noqa: B905
        title = (
            f"Overlap of the two halves, from 0 to 1: W_down with col(B), and their shifts on {self.tokens:,} tokens"
        )
        return "\n".join([title, *(line.rstrip() for line in lines)])


def redundancy(model: Any, batches: Iterable[Mapping[str, Tensor]], tokens: int = 2048) -> Redundancy:
    """Measure how far the two halves of a model's active joint adapter do the same thing.

    In each block: the principal angles between the row space of W_down and col(B), B the LoRA-B of its MLP output
    map; and on the first `tokens` tokens of `batches` (held-out inputs, as the model is called with them) the shifts
    `h_weights - h_base` and `h_activations - h_base` of the block's output, each half acting alone: the cosine at each
    token, and the principal angles between the up to 8 leading directions of each. Hidden states are not isotropic,
    so two unrelated shifts may overlap somewhat more than random subspaces do.
    The model is left as it was.

    Raises ActshiftError for a model without a joint adapter, and where `batches` hold no token.
    Source: the redundancy is the paper's (arXiv 2603.00425, joint adaptation), the measure is [ours].

    >>> print(redundancy(model, batches))  # doctest: +SKIP
    """
    weights, activations = shifts_alone(model, batches, tokens)
    reads = _reads(model)
    blocks = tuple(
        BlockRedundancy(
            number,
            _overlap(*reads[number]) if number in reads else None,
            _overlap(_leading(one), _leading(other).T),
            _mean_cosine(one, other),
        )
        for number, (one, other) in enumerate(zip(weights, activations, strict=True))
    )
    return Redundancy(blocks, len(weights[0]))


def _reads(model: Any) -> dict[int, tuple[Tensor, Tensor]]:
    """What is read in each block, as rows `[n, d]`, and what LoRA wrote there, as columns `[d, r]`."""
    found: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for layer in steering_layers(model).values():
        for name in layer.constraints.keys() & set(layer.active_adapters):
            shift: Any = layer.lora_steer[name]
            rows, columns = found.setdefault(layer.layer_index, ([], []))
            rows += [whole(tensor.detach()) for tensor in shift.reads()]
            columns += [whole(tensor.detach()) for tensor in layer.constraints[name].columns(name)]
    return {
        number: (torch.cat(rows).cpu(), torch.cat(columns, dim=1).cpu())
        for number, (rows, columns) in found.items()
        if rows and columns
    }


def _overlap(rows: Tensor, columns: Tensor) -> Overlap | None:
    cosines = principal_cosines(rows, columns)
    if not len(cosines):
        return None
    chance = chance_overlap(span_dimensions(rows.mT), span_dimensions(columns), rows.shape[1])
    return Overlap(cosines.square().mean().item(), cosines[0].item(), chance)


def _leading(shift: Tensor) -> Tensor:
    """The leading principal directions of `shift [tokens, d]` as rows `[k, d]`, those of negligible size as zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the method draws at random, and a report should say the same twice
        _, size, right = torch.svd_lowrank(shift.double(), q=min(4 * DIRECTIONS, *shift.shape), niter=4)
    return (right * (size > NEGLIGIBLE * size[0])).T[:DIRECTIONS]


def _mean_cosine(one: Tensor, other: Tensor) -> float | None:
    moved = (one.norm(dim=1) > 0) & (other.norm(dim=1) > 0)
    return F.cosine_similarity(one[moved].double(), other[moved].double()).mean().item() if moved.any() else None


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _figures(overlap: Overlap | None) -> Sequence[str]:
    return ["–"] * 3 if overlap is None else [_figure(v) for v in (overlap.mean, overlap.largest, overlap.chance)]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


CLEARLY = 2
"""An overlap of twice what chance gives is no chance: hidden states alone make it somewhat more than random."""
KINDS: dict[str, tuple[str, str]] = {
    "read": (POST_BLOCK, "what steering reads, LoRA writes"),
    "shift": (ELSEWHERE, "the shifts of each alone"),
}


def sections(report: Redundancy) -> Iterator[Section]:
    """Give the section that a joint adapter fills; where nothing can be compared there is none."""
    if report.read is None and report.shift is None:
        return
    yield Section(
        key="halves",
        title="Whether the two halves do the same thing",
        reading="Each bar is an overlap in one block, the mean squared cosine of principal angles from 0 to 1: of what "
        "steering reads with what LoRA writes, and of the shifts that each makes alone; a dash is what chance gives.",
        advice=_advice(report),
        alt=f"Bars by block: reading and writing overlap by {_number(report.read)} on average, the shifts of the two "
        f"halves by {_number(report.shift)}.",
        columns=("block", "read", "chance", "shifts", "chance", "cosine by token"),
        rows=tuple((str(one.block), *_pair(one.read), *_pair(one.shift), _number(one.cosine)) for one in report.blocks),
        draw=lambda: draw(report),
    )


def draw(report: Redundancy) -> Figure:
    """Draw both overlaps by block, with what two random subspaces of their sizes would have.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(4.9, 3.1)
    axes: Any = figure.subplots()
    for side, (kind, (colour, label)) in zip((-0.2, 0.2), KINDS.items(), strict=True):
        found = [(one.block + side, overlap) for one in report.blocks if (overlap := getattr(one, kind)) is not None]
        axes.bar([at for at, _ in found], [one.mean for _, one in found], width=0.36, color=colour, label=label)
        chances = [one.chance for _, one in found]
        edges = [[at + half for at, _ in found] for half in (-0.18, 0.18)]
        axes.hlines(chances, *edges, color=INK, linewidth=1.5, label="chance" if side > 0 else None)
    axes.set_xticks([one.block for one in report.blocks])
    axes.set_ylim(0, 1)
    finish(axes, "block", "overlap")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _advice(report: Redundancy) -> str:
    read, shift = ([getattr(one, kind) for one in report.blocks if getattr(one, kind)] for kind in KINDS)
    said = [*([_reading(read)] if read else []), *([_shifting(shift, report)] if shift else [])]
    words = "; ".join(said)
    return f"{words[0].upper()}{words[1:]}."


def _reading(found: Sequence[Overlap]) -> str:
    mean, chance = _means(found)
    measured = f"as steering reads {mean:.3f} of what LoRA writes, where {chance:.2f} would be chance"
    if mean > CLEARLY * chance:
        return f"train again with `--orthogonality read`, {measured}"
    return f"leave the rule as it is, {measured}"


def _shifting(found: Sequence[Overlap], report: Redundancy) -> str:
    mean, chance = _means(found)
    if mean <= CLEARLY * chance:
        return f"keep both halves, whose shifts overlap by {mean:.2f}, where {chance:.2f} would be chance"
    most = max(report.blocks, key=lambda one: one.shift.mean if one.shift else 0.0)
    return (
        f"try each half alone with `actshift eval --half`, as their shifts overlap by {mean:.2f}, most in "
        f"{blocks([most.block])}, where {chance:.2f} would be chance"
    )


def _means(found: Sequence[Overlap]) -> tuple[float, float]:
    return fmean(one.mean for one in found), fmean(one.chance for one in found)


def _pair(overlap: Overlap | None) -> tuple[str, str]:
    return ("–", "–") if overlap is None else (f"{overlap.mean:.3f}", f"{overlap.chance:.3f}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
