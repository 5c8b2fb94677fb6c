"""The orthogonality rule on one steering layer: which tensors it binds, and the projection of many layers at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actshift.adapters import Shift
from actshift.orthogonality import Orthogonality, parseval_frame, project_away

AT_ONCE = 2**23
"""How many numbers of B are worked on at a time: with 128 experts a layer, all of them would take gigabytes."""


@dataclass(frozen=True, eq=False)
class Constraint:
    """The rule on one adapter of one steering layer, and the LoRA layers whose B the adapter is kept apart from.

    Held as `layer.constraints[adapter_name]`. Tensors are looked up through the modules each time, since FSDP replaces
    parameters, and so that a deep copy of the model points at the copy's own. With `orthogonality=None` nothing is
    enforced, and the overlap can still be measured.
    """

    orthogonality: Orthogonality | None
    writers: Sequence[nn.Module]
    width: int | None = None
    """d, where it must be told which side of LoRA writes to the stream: PEFT takes Llama-4's experts the other way."""

    @property
    def period(self) -> int | Literal["epoch"] | None:
        """When the rule projects: `every`, or None where it is kept by a penalty, or not at all."""
        rule = self.orthogonality
        return None if rule is None or rule.penalty is not None else rule.every

    def columns(self, adapter_name: str) -> list[Tensor]:
        """Return what the weights' half of the block writes with: every writer's `B [d, r]`.

        The B of stacked experts is one tensor `[d, r · experts]`, whose columns span what all of them write.
        """
        found = []
        for writer in self.writers:
            lora_a: Any = writer.lora_A
            lora_b: Any = writer.lora_B
            if adapter_name in lora_b:
                columns = lora_b[adapter_name].weight
                straight = self.width in (None, columns.shape[0])
                found.append(columns if straight else lora_a[adapter_name].weight.mT)
        return found

    def rows(self, shift: Shift) -> list[Tensor]:
        """Return what the rule binds, each as rows `[n, d]`: views, so that writing to them writes to the adapter."""
        rule = self.orthogonality or Orthogonality()
        bound = list(shift.reads()) if rule.reads else []
        if rule.writes:
            bound += [tensor.unsqueeze(0) if tensor.ndim == 1 else tensor.mT for tensor in shift.writes()]
        return bound


@dataclass(frozen=True, eq=False)
class Pair:
    """The two sides of one constraint at this moment: `rows [n, d]` to be orthogonal to `columns [d, r]`."""

    rows: list[Tensor]
    columns: list[Tensor]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return the rows as one `[n, d]` and the columns as one `[d, r]`, whole where they are sharded."""
        rows, columns = torch.cat([whole(t) for t in self.rows]), torch.cat([whole(t) for t in self.columns], dim=1)
        return rows, columns.to(rows.device)


@torch.no_grad()
def project(pairs: Iterable[Pair]) -> None:
    """Project the rows of every pair away from its columns, in place; pairs of one shape are computed together."""
    for members, rows, columns in _by_shape(pairs):
        projected = project_away(rows, columns)
        for pair, result in zip(members, projected, strict=True):
            for view, part in zip(pair.rows, result.split([len(view) for view in pair.rows]), strict=True):
                view.copy_(_sharded_like(view, part))


def overlap(pairs: Iterable[Pair]) -> list[Tensor]:
    """Return ‖W Q‖²_F for the pairs of each shape: W the rows, Q a basis of the columns, which counts as constant."""
    terms = []
    for _, rows, columns in _by_shape(pairs):
        frame = parseval_frame(columns.detach())
        terms.append((rows @ frame.to(rows)).square().sum())
    return terms


def _by_shape(pairs: Iterable[Pair]) -> Iterable[tuple[list[Pair], Tensor, Tensor]]:
    groups: dict[Any, list[tuple[Pair, Tensor, Tensor]]] = defaultdict(list)
    for pair in pairs:
        if pair.rows and pair.columns:
            rows, columns = pair.stacked()
            groups[rows.shape, columns.shape, rows.device, rows.dtype].append((pair, rows, columns))
    for group in groups.values():
        together = max(1, AT_ONCE // group[0][2].numel())
        for start in range(0, len(group), together):
            members, rows, columns = zip(*group[start : start + together], strict=True)
            yield list(members), torch.stack(rows), torch.stack(columns)


def whole(tensor: Any) -> Tensor:
    """Return a tensor, gathered where FSDP2 keeps it in shards."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _sharded_like(like: Any, tensor: Tensor) -> Any:
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim).redistribute(mesh, like.placements)
