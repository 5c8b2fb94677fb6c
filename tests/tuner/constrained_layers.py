"""A small model of LoRA and steering layers only, for tests of the optimiser hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from actshift.adapters import LowRank
from actshift.orthogonality import Orthogonality, violation
from actshift.tuner.joint.constraint import Constraint
from actshift.tuner.optimizer_hooks import watch

WIDTH, RANK = 24, 3


class Lora(nn.Module):
    """The attributes of a LoRA layer of PEFT that a constraint uses."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.lora_A = nn.ModuleDict({"default": nn.Linear(WIDTH, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, WIDTH, bias=False)})
        nn.init.zeros_(self.lora_B["default"].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B["default"](self.lora_A["default"](x))


class Layer(nn.Module):
    """The attributes of a SteeringLayer that the hooks use, with its LoRA layers inside."""

    def __init__(self, rule: Orthogonality | None, ranks: tuple[int, ...]) -> None:
        super().__init__()
        self.writers = nn.ModuleList(Lora(rank) for rank in ranks)
        self.lora_steer = nn.ModuleDict({"default": LowRank(RANK, activation="silu").build(WIDTH)})
        self.constraints = {"default": Constraint(rule, list(self.writers))}
        watch(self)  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        watch(self)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(x + sum(writer(x) for writer in self.writers))
        return hidden + self.lora_steer["default"](hidden)

    @property
    def down(self) -> nn.Parameter:
        return self.lora_steer["default"].down.weight

    @property
    def up(self) -> nn.Parameter:
        return self.lora_steer["default"].up.weight

    @property
    def written(self) -> Tensor:
        return torch.cat(self.constraints["default"].columns("default"), dim=1)


class Stack(nn.Sequential):
    """Several layers; `ranks` are the ranks of the LoRA layers in each."""

    def __init__(self, rule: Orthogonality | None = Orthogonality(), ranks=((2,), (2,), (4,), (2, 3))) -> None:  # noqa: B008
        super().__init__(*(Layer(rule, layer_ranks) for layer_ranks in ranks))

    def halves(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of LoRA, and the parameters of the shifts."""
        weights = [p for name, p in self.named_parameters() if "lora_steer" not in name]
        return weights, [p for name, p in self.named_parameters() if "lora_steer" in name]

    def loss(self) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        batch = torch.randn(8, WIDTH, generator=generator).to(next(self.parameters()))
        target = torch.randn(8, WIDTH, generator=generator).to(batch)
        return (self(batch) - target).square().mean()

    def read_violation(self) -> float:
        return max(violation(layer.down, layer.written) for layer in self)

    def write_violation(self) -> float:
        return max(violation(layer.up.mT, layer.written) for layer in self)


def step(model: Stack, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.loss().backward()
    optimizer.step()
