"""The layer that hangs below a host module and shifts what the host returns, or takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actshift.adapters import Shift
from actshift.errors import ActshiftError
from actshift.sites import Host, Positions, hidden_of, with_hidden
from actshift.tuner.intervention import Target
from actshift.tuner.joint.constraint import Constraint
from actshift.tuner.optimizer_steps import watch

CHILD = "actshift"  # the layer's name below its host; PEFT would skip a name with "lora_" in it
CHILD_AT_INPUT = "actshift_input"  # one module may be steered at both ends: BERT's o_proj also ends its branch
CONTAINER = ".lora_steer."  # between a layer's name and an adapter's
EVERYWHERE = Positions.all()
BASE_ROW = "__base__"  # PEFT's name for "no adapter" in `adapter_names`


class Prompts(Protocol):
    """Who knows which tokens of the forward that runs now are the prompt (`prompts.py`)."""

    def mask_for(self, positions: Positions, x: Tensor) -> Tensor:
        """Return which tokens of `x [..., d]` are meant, `[..., 1]` bool."""
        ...


class SteeringLayer(nn.Module, BaseTunerLayer):
    """Adds the active adapters' shifts to an activation: x ← x + Σ s·Δ(x), at each adapter's positions.

    The adapters sit in one ModuleDict by adapter name, so that a tensor is called
    `<host>.actshift.lora_steer.<adapter>.down.weight`.
    """

    adapter_layer_names = ("lora_steer",)
    other_param_names = ("strength", "positions", "constraints")

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.site, self.layer_index, self.width, self.at_input = host.site, host.layer, host.width, host.at_input
        self.child = child_of(host)
        self.lora_steer = nn.ModuleDict()
        self.strength: dict[str, float] = {}
        self.positions: dict[str, Positions] = {}
        self.constraints: dict[str, Constraint] = {}
        self.row_adapters: Sequence[str] | None = None
        self.prompts: Prompts | None = None
        self.attach_to(host.module)
        watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be looked after as a copy, and when unpickled, as the original is."""
        super().__setstate__(state)
        watch(self)

    def attach_to(self, module: nn.Module) -> None:
        """Become the child of a host, and hook on to what it returns, or takes."""
        self._host = [module]  # in a list, so that the host does not become its own grandchild
        module.add_module(self.child, self)
        if self.at_input:
            self._hook = module.register_forward_pre_hook(steer_input, prepend=True)
        else:
            self._hook = module.register_forward_hook(steer, prepend=True)

    def update_layer(self, adapter_name: str, target: Target) -> None:
        """Add a fresh adapter under this name, on the host's device and in its dtype."""
        device, dtype = _device_and_dtype(self._host[0])
        module = built(target)
        if not any(parameter.is_meta for parameter in module.parameters()):  # PEFT's low_cpu_mem_usage
            module = module.to(device=device, dtype=dtype)
        self.lora_steer[adapter_name] = module
        self.strength[adapter_name] = 1.0
        self.positions[adapter_name] = target.intervention.positions

    def forward(self, x: Tensor) -> Tensor:
        """Return the steered `x [..., d]`, in the dtype of `x`; `x` itself where nothing is active."""
        if self.disable_adapters:
            return x
        if self.row_adapters is not None:
            return self._steer_rows(x, self.row_adapters)
        steered = x
        for name in self.active_adapters:
            if self._acts(name):
                mask = self._mask(name, x)
                shifted = steered + self._shift(name, x)
                steered = shifted if mask is None else torch.where(mask, shifted, steered)
        return steered

    def _acts(self, name: str) -> bool:
        # At strength 0 the adapter is skipped, and so the base model is kept to the bit.
        return name in self.lora_steer and self.strength[name] != 0

    def _shift(self, name: str, x: Tensor) -> Tensor:
        adapter = self.lora_steer[name]
        wanted = x if torch.is_autocast_enabled(x.device.type) else x.to(next(adapter.parameters()).dtype)
        shift, strength = adapter(wanted), self.strength[name]
        return (shift if strength == 1 else strength * shift).to(x.dtype)

    def _mask(self, name: str, x: Tensor) -> Tensor | None:
        """Which tokens this adapter steers, as a mask that broadcasts over `x`; None is every one."""
        positions = self.positions[name]
        if positions == EVERYWHERE:
            return None
        assert self.prompts is not None  # installed with the first adapter that steers some tokens only
        return self.prompts.mask_for(positions, x)

    def _steer_rows(self, x: Tensor, names: Sequence[str]) -> Tensor:
        steered = x
        row_names = _spread(names, x.shape[0])
        for name in dict.fromkeys(row_names):
            if self._acts(name):
                rows = torch.tensor([i for i, row in enumerate(row_names) if row == name], device=x.device)
                part = x[rows]
                shift = self._shift(name, part).expand_as(part)
                mask = self._mask(name, x)
                if mask is not None:
                    shift = torch.where(mask[rows], shift, torch.zeros_like(shift))
                steered = steered.index_add(0, rows, shift)
        return steered

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        host_device, dtype = _device_and_dtype(self._host[0])
        if adapter_name in self.lora_steer:
            self.lora_steer[adapter_name].to(device=device or host_device, dtype=dtype)

    def detach_from_host(self) -> None:
        """Take the hook and the layer off the host, which is then as it was before."""
        self._hook.remove()
        delattr(self._host[0], self.child)

    @property
    def weight(self) -> Tensor:
        """PEFT's layers pass their base layer's weight on; this one wraps nothing, so there is none."""
        raise AttributeError("a SteeringLayer has no weight")

    @property
    def bias(self) -> Tensor:
        """There is none, as for `weight`."""
        raise AttributeError("a SteeringLayer has no bias")


def built(target: Target) -> Shift:
    """Return the fresh module that an intervention makes at its host."""
    return target.intervention.adapter.build(target.host.width, target.host.heads)


def child_of(host: Host) -> str:
    """Return the name that the steering layer has below a host."""
    return CHILD_AT_INPUT if host.at_input else CHILD


def layer_at(host: Host) -> SteeringLayer:
    """Return the steering layer below a host, attached on the first call."""
    child = child_of(host)
    existing = host.module._modules.get(child)
    if existing is None:
        return SteeringLayer(host)
    if not isinstance(existing, SteeringLayer):
        raise ActshiftError(f"{host.name} already has a child module named {child!r} that is not actshift's.")
    return existing


def steer_input(host: nn.Module, args: tuple[Any, ...]) -> Any:
    """Forward pre-hook of a host that is steered at its input: pass its first argument through the layer below it."""
    layer = host._modules[CHILD_AT_INPUT]
    assert isinstance(layer, SteeringLayer)
    if not args or not isinstance(args[0], Tensor):
        raise ActshiftError(f"{type(host).__name__} is called without a tensor to steer; choose another site.")
    return (layer(args[0]), *args[1:])


def steer(host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of every host: pass its hidden states through the layer below it.

    transformers checkpoints a block's `forward`, and hooks run outside of it, so the layer recomputes itself
    when its block does; what is kept is then still one hidden state a block.
    """
    layer = host._modules[CHILD]
    assert isinstance(layer, SteeringLayer)
    hidden = hidden_of(output)
    if not isinstance(hidden, Tensor):
        raise ActshiftError(
            f"{type(host).__name__} returns a {type(output).__name__}, and steering needs a tensor or a tuple that "
            "starts with one; choose another site."
        )
    if getattr(host, "gradient_checkpointing", False) and host.training and torch.is_grad_enabled():
        steered = checkpoint(layer, hidden, use_reentrant=False)
    else:
        steered = layer(hidden)
    return with_hidden(output, steered)


def _spread(names: Sequence[str], rows: int) -> list[str]:
    """Give each of `rows` leading entries its adapter.

    Hosts may see tokens for rows (OPT flattens batch and seq before its MLP), and under beam search an encoder
    sees each prompt once while the names are already repeated for the beams.
    """
    if rows % len(names) == 0:
        return [name for name in names for _ in range(rows // len(names))]
    if len(names) % rows == 0:
        return list(names[:: len(names) // rows])
    raise ActshiftError(
        f"adapter_names has {len(names)} entries for a batch of {rows} rows; give one name a row ('__base__' for none)."
    )


def _device_and_dtype(host: nn.Module) -> tuple[torch.device, torch.dtype]:
    # Quantised weights are integers, so the first floating tensor tells the dtype; the adapters do not count.
    own = [p for name, p in host.named_parameters() if CONTAINER not in name]
    device = own[0].device if own else torch.device("cpu")
    return device, next((p.dtype for p in own if p.is_floating_point()), torch.float32)
