"""The layer that hangs below a host module and shifts what the host returns, or takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actshift.adapters import Shift
from actshift.adapters.functional import add_shift, add_shift_memory_efficient
from actshift.errors import ActshiftError
from actshift.sites import Host, Positions, hidden_of, with_hidden
from actshift.tuner.intervention import Target
from actshift.tuner.joint.constraint import Constraint
from actshift.tuner.optimizer_hooks import watch
from actshift.tuner.row_adapters import ActiveAdapter, RowAdapters, apply_shift, usable_factors
from actshift.tuner.walking import device_and_dtype, everyone_in

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
        self.trainable: set[str] = set()
        self.row_adapters: RowAdapters | None = None
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
        device, dtype = device_and_dtype(self._host[0])
        module = build_shift(target)
        if not any(parameter.is_meta for parameter in module.parameters()):  # PEFT's low_cpu_mem_usage
            module = module.to(device=device, dtype=dtype)
        self.lora_steer[adapter_name] = module
        self.strength[adapter_name] = 1.0
        self.positions[adapter_name] = target.intervention.positions
        self.trainable.add(adapter_name)  # as every fresh one is, until others are activated

    def forward(self, x: Tensor) -> Tensor:
        """Return the steered `x [..., d]`, in the dtype of `x`; `x` itself where nothing is active."""
        if self._disable_adapters:
            return x
        if self.row_adapters is not None:
            return self.row_adapters.steer(x, self._mask)
        if self.site == "post_block" and len(self._active_adapter) == 1:
            # After a block the sum is what the next block keeps; what a branch gives is kept by nobody, and some
            # models change it in place. It is said here at once, as in decoding each call costs what a product does.
            [name] = self._active_adapter
            adapter, strength = everyone_in(self._modules["lora_steer"]).get(name), self.strength.get(name, 0.0)
            everywhere = adapter is not None and strength and self.positions[name].where == "all"
            factors = usable_factors(adapter) if everywhere else None
            if factors is not None:
                lean = torch.is_grad_enabled()
                return add_shift_memory_efficient(x, factors, strength) if lean else add_shift(x, x, factors, strength)
        acting = self._acting()
        if acting and self._recomputes():
            return checkpoint(self._steer, x, acting, use_reentrant=False)
        return self._steer(x, acting)

    def _steer(self, x: Tensor, acting: Sequence[ActiveAdapter]) -> Tensor:
        steered = x
        for one in acting:
            shifted = apply_shift(steered, one.adapter, x, one.strength)
            steered = shifted if one.everywhere else torch.where(self._mask(one.positions, x), shifted, steered)
        return steered

    def _acting(self, names: Sequence[str] | None = None) -> list[ActiveAdapter]:
        """Return the adapters of these names, or the active ones, that act here.

        At strength 0 an adapter is skipped, and so the base model is kept to the bit.
        """
        held, strength, positions = everyone_in(self.lora_steer), self.strength, self.positions
        names = self._active_adapter if names is None else names
        names = (names,) if isinstance(names, str) else names
        return [
            ActiveAdapter(name, held[name], strength[name], positions[name])
            for name in names
            if name in held and strength[name] != 0
        ]

    def _recomputes(self) -> bool:
        """Whether the host's own activations are computed again in the backward pass, and so should be the shift's.

        transformers checkpoints a block's `forward`, and hooks run outside of it.
        """
        host = self._host[0]
        return torch.is_grad_enabled() and host.training and getattr(host, "gradient_checkpointing", False)

    def _mask(self, positions: Positions, x: Tensor) -> Tensor:
        """Which tokens of x are meant, as a mask that broadcasts over it."""
        assert self.prompts is not None  # installed with the first adapter that steers some tokens only
        return self.prompts.mask_for(positions, x)

    def steer_rows(self, names: Sequence[str] | None) -> None:
        """Give every row of what comes next its own adapter by name, as they are now; None ends that."""
        self.row_adapters = None if names is None else RowAdapters(names, self._acting(list(dict.fromkeys(names))))

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters and let them train; only those that trained before are frozen, not each of thousands."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.set_requires_grad([name for name in self.trainable if name not in names], False)
        self.set_requires_grad(names, not inference_mode)
        self._active_adapter = names

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let adapters train, or freeze them."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name in self.lora_steer:
                self.lora_steer[name].requires_grad_(requires_grad)
                (self.trainable.add if requires_grad else self.trainable.discard)(name)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        host_device, dtype = device_and_dtype(self._host[0])
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


def build_shift(target: Target) -> Shift:
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
    """Forward hook of every host: pass its hidden states through the layer below it."""
    layer: Any = host._modules[CHILD]
    if isinstance(output, Tensor):
        return layer(output)
    hidden = hidden_of(output)
    if not isinstance(hidden, Tensor):
        raise ActshiftError(
            f"{type(host).__name__} returns a {type(output).__name__}, and steering needs a tensor or a tuple that "
            "starts with one; choose another site."
        )
    return with_hidden(output, layer(hidden))
