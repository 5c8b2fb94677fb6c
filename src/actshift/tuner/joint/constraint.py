"""The orthogonality rule at one steering layer: the tensors that it constrains, and their projection in batches."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from actshift.adapters import Shift
from actshift.orthogonality import Orthogonality, parseval_frame, project_away

MAX_BATCH_ELEMENTS = 2**23  # of B, in one batch: with 128 experts in a layer, all of B would take gigabytes


@dataclass(frozen=True, eq=False)
class Constraint:
    """The rule for one adapter of one steering layer, and the LoRA layers whose B it must be orthogonal to.

    It is stored as `layer.constraints[adapter_name]`. It refers to modules and looks up their tensors on each use,
    because FSDP replaces parameters, and because a deep copy of the model must refer to its own tensors. With
    `orthogonality=None` nothing is enforced, but the overlap can still be measured.
    """

    orthogonality: Orthogonality | None
    writers: Sequence[nn.Module]
    width: int | None = None  # d, to tell which LoRA matrix writes to it: PEFT swaps them for Llama-4's experts

    @property
    def period(self) -> int | Literal["epoch"] | None:
        """How often the rule projects (its `every`); None if it uses a penalty, or without a rule."""
        rule = self.orthogonality
        return None if rule is None or rule.penalty is not None else rule.every

    def columns(self, adapter_name: str) -> list[Tensor]:
        """Return the matrices `[d, r]` through which LoRA writes in this block, one for each writer.

        The B of stacked experts is one tensor `[d, r * experts]`; its columns span the writes of all experts.
        """
        writers = [writer for writer in cast(Sequence[Any], self.writers) if adapter_name in writer.lora_B]
        maps = [(writer.lora_A[adapter_name].weight, writer.lora_B[adapter_name].weight) for writer in writers]
        return [b if self.width in (None, b.shape[0]) else a.mT for a, b in maps]

    def rows(self, shift: Shift) -> list[Tensor]:
        """Return the constrained tensors of a shift as rows `[n, d]`, which are views of its parameters."""
        rule = self.orthogonality or Orthogonality()
        reads, writes = shift.reads() if rule.reads else (), shift.writes() if rule.writes else ()
        return [*reads, *(tensor.unsqueeze(0) if tensor.ndim == 1 else tensor.mT for tensor in writes)]


class OrthogonalPair(NamedTuple):
    """The two sides of a constraint: each tensor of `rows [n, d]` should be orthogonal to all `columns [d, r]`."""

    rows: list[Tensor]
    columns: list[Tensor]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return all rows as one `[n, d]` and all columns as one `[d, r]`, gathered if they are sharded."""
        rows = torch.cat([full_tensor(tensor) for tensor in self.rows])
        columns = torch.cat([full_tensor(tensor) for tensor in self.columns], dim=1)
        return rows, columns.to(rows.device)


@torch.no_grad()
def project(pairs: Iterable[OrthogonalPair]) -> None:
    """Remove from the rows of each pair their component in the span of its columns, in place.

    Pairs of the same shape are processed in one batch.
    Source: arXiv 2603.00425, joint adaptation; docs/method.md#joint-rule.
    """
    for members, rows, columns in _batches(pairs):
        projected = project_away(rows, columns)
        for pair, result in zip(members, projected, strict=True):
            for view, values in zip(pair.rows, result.split([len(view) for view in pair.rows]), strict=True):
                view.copy_(_sharded_like(view, values))


def overlap(pairs: Iterable[OrthogonalPair]) -> list[Tensor]:
    """Return ‖W Q‖²_F for each batch of pairs: rows W, orthonormal basis Q of the columns. Gradients flow to W only."""
    batches = _batches(pairs)
    return [(rows @ parseval_frame(columns.detach()).to(rows)).square().sum() for _, rows, columns in batches]


def _batches(pairs: Iterable[OrthogonalPair]) -> Iterator[tuple[list[OrthogonalPair], Tensor, Tensor]]:
    """Yield pairs of the same shape, device and dtype, with their rows `[batch, n, d]` and columns `[batch, d, r]`."""
    groups: dict[Any, list[tuple[OrthogonalPair, Tensor, Tensor]]] = defaultdict(list)
    for pair in pairs:
        if pair.rows and pair.columns:
            rows, columns = pair.stacked()
            groups[rows.shape, columns.shape, rows.device, rows.dtype].append((pair, rows, columns))
    for group in groups.values():
        batch_size = max(1, MAX_BATCH_ELEMENTS // group[0][2].numel())
        for start in range(0, len(group), batch_size):
            members, rows, columns = zip(*group[start : start + batch_size], strict=True)
            yield list(members), torch.stack(rows), torch.stack(columns)


def full_tensor(tensor: Any) -> Tensor:
    """Return a tensor, gathered from its shards if FSDP2 has sharded it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _sharded_like(like: Any, tensor: Tensor) -> Any:
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim).redistribute(mesh, like.placements)
