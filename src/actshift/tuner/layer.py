"""The steering layer: a child module that steers the output or input of its host."""

# The lookup of children through nn.Module.__getattr__ is slow in decoding.
# pyright: reportPrivateUsage=false
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actshift.adapters import Shift
from actshift.adapters.functional import add_shift, add_shift_memory_efficient
from actshift.errors import ActshiftError
from actshift.sites import Host, Positions, hidden_of, with_hidden
from actshift.tuner import run_state
from actshift.tuner.checkpoint import TORCH_DTYPES, Shape
from actshift.tuner.intervention import Target
from actshift.tuner.joint.constraint import Constraint
from actshift.tuner.optimizer_hooks import watch
from actshift.tuner.row_adapters import ActiveAdapter, apply_shift, usable_factors
from actshift.tuner.run_state import Overrides, Strengths, overrides
from actshift.tuner.traversal import all_adapters, modules_around_adapters

CHILD = "actshift"  # name of the layer below its host; PEFT would skip a name with "lora_" in it
CHILD_AT_INPUT = "actshift_input"  # a module can be steered at both ends: BERT's o_proj also ends its branch
CONTAINER = ".lora_steer."  # in tensor names, between the layer and the adapter
EVERYWHERE = Positions.all()
BASE_ROW = "__base__"  # PEFT's name for "no adapter" in `adapter_names`


class SteeringLayer(nn.Module, BaseTunerLayer):
    """Adds the shifts of the active adapters to an activation: x ← x + Σ s·Δ(x), at the positions of each adapter.

    The adapters are in one ModuleDict by name: tensors are called `<host>.actshift.lora_steer.<adapter>.down.weight`.
    `strength` has the strengths for all threads, and `strengths` those of this one, which a `with` block may change.
    """

    adapter_layer_names = ("lora_steer",)
    other_param_names = ("strength", "positions", "constraints")

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.site, self.layer_index, self.width, self.at_input = host.site, host.layer, host.width, host.at_input
        self.axes = host.axes  # of batch and sequence; None until an unambiguous shape shows them
        self.child = child_of(host)
        self.lora_steer = nn.ModuleDict()
        self.strength: dict[str, float] = {}
        self.positions: dict[str, Positions] = {}
        self.constraints: dict[str, Constraint] = {}
        self.trainable: set[str] = set()
        self.prompts: Any = None  # a PromptScope or GeneratedScope, once an adapter steers only some tokens
        self.attach_to(host.module)
        watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        watch(self)  # a copied or unpickled layer

    def attach_to(self, module: nn.Module) -> None:
        """Become the child of a host, and register the forward hook that steers its output or input."""
        self._host = [module]  # in a list, because nn.Module would register the host as a child of this layer
        module.add_module(self.child, self)
        register: Any = module.register_forward_pre_hook if self.at_input else module.register_forward_hook
        self._hook = register(steer_input if self.at_input else steer, prepend=True)

    def detach_from_host(self) -> None:
        """Remove the hook and this layer from the host."""
        self._hook.remove()
        delattr(self._host[0], self.child)

    def update_layer(self, adapter_name: str, target: Target, strength: float = 1.0) -> None:
        """Add a fresh adapter with this name and strength, on the device and in the dtype of the host."""
        shift = self.lora_steer[adapter_name] = build_shift(target)
        if not any(parameter.is_meta for parameter in shift.parameters()):  # PEFT's low_cpu_mem_usage
            self._move_adapter_to_device_of_base_layer(adapter_name)
        self.strength[adapter_name] = float(strength)
        self.positions[adapter_name] = target.intervention.positions
        self.trainable.add(adapter_name)  # a fresh adapter requires gradients until others are activated

    def forward(self, x: Tensor) -> Tensor:
        """Return the steered `x [..., d]` in the dtype of `x`, or `x` itself if no adapter is active."""
        if self._disable_adapters:
            return x
        if run_state.in_use or run_state.replayed:
            return self._steer_in_context(x, overrides() or Overrides())
        return self._add_shifts(x, self.strength)

    def _add_shifts(self, x: Tensor, strengths: Strengths) -> Tensor:
        """Return `x` with the shifts of the active adapters at these strengths."""
        if self.site == "post_block" and len(self._active_adapter) == 1:
            # The next block keeps the sum for its backward pass, so the shift need not keep x. No module keeps the
            # output of a branch, and some models change it in place. Inlined: call overhead dominates a decoding step.
            [name] = self._active_adapter
            container: Any = self._modules["lora_steer"]
            adapter, strength = all_adapters(container).get(name), strengths.get(name, 0.0)
            everywhere = adapter is not None and strength and self.positions[name].where == "all"
            factors = usable_factors(adapter) if everywhere else None
            if factors is not None and torch.is_grad_enabled():
                return add_shift_memory_efficient(x, factors, strength)
            if factors is not None:
                return add_shift(x, x, factors, strength)
        adapters, host = self.adapters_at(strengths), self._host[0]
        if adapters and torch.is_grad_enabled() and host.training and getattr(host, "gradient_checkpointing", False):
            # transformers checkpoints a block's `forward`, and hooks run outside of it.
            return checkpoint(self._steer, x, adapters, use_reentrant=False)
        return self._steer(x, adapters)

    def _steer_in_context(self, x: Tensor, own: Overrides) -> Tensor:
        """Return the steered `x` with what this thread has changed, or what a checkpointed forward pass had."""
        if own.rows is not None and (rows := own.rows.at(self)) is not None:
            return rows.steer(x, self, own.rows.shape)
        strengths = run_state.replayed_strengths() or own.strengths
        return self._add_shifts(x, strengths.get(self, self.strength))

    def _steer(self, x: Tensor, adapters: Sequence[ActiveAdapter]) -> Tensor:
        steered = x
        for adapter in adapters:
            shifted = apply_shift(steered, adapter.shift, x, adapter.strength)
            if adapter.positions.where != "all":
                shifted = torch.where(self.mask_for(adapter.positions, x), shifted, steered)
            steered = shifted
        return steered

    def mask_for(self, positions: Positions, x: Tensor) -> Tensor:
        """Return a bool mask of the tokens of `x [..., d]` that these positions steer, which broadcasts to `x`."""
        return self.prompts.mask_for(positions, x, self)

    def adapters_at(self, strengths: Strengths, names: Sequence[str] | None = None) -> list[ActiveAdapter]:
        """Return the adapters of these names (default: the active ones), without those of strength 0."""
        adapters = all_adapters(self.lora_steer)
        return [
            ActiveAdapter(name, adapters[name], strengths[name], self.positions[name])
            for name in (self.active_adapters if names is None else names)
            if name in adapters and strengths[name] != 0
        ]

    def _replicate_for_data_parallel(self) -> Any:
        replica: Any = super()._replicate_for_data_parallel()
        replica.strength = self.strengths  # the threads of DataParallel do not have the context of their caller
        return replica

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters and make them trainable; freeze only those that were trainable before."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.set_requires_grad([name for name in self.trainable if name not in names], False)
        self.set_requires_grad(names, not inference_mode)
        self._active_adapter = names

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Make adapters trainable, or freeze them."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name in self.lora_steer:
                self.lora_steer[name].requires_grad_(requires_grad)
                (self.trainable.add if requires_grad else self.trainable.discard)(name)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        modules = [module for _, module in modules_around_adapters(self._host[0])]
        own = [parameter for module in modules for parameter in module.parameters(recurse=False)]
        device = device or (own[0].device if own else torch.device("cpu"))
        # Quantised weights are integers or float8, to which the first weights of an adapter must not be rounded.
        dtype = next((parameter.dtype for parameter in own if parameter.dtype in TORCH_DTYPES), torch.float32)
        if adapter_name in self.lora_steer:
            self.lora_steer[adapter_name].to(device=device, dtype=dtype)

    @property
    def strengths(self) -> Strengths:
        """The strengths of the adapters by name, in this thread or async task."""
        own = overrides()
        return own.strengths.get(self, self.strength) if own else self.strength

    @property
    def host(self) -> nn.Module:
        """The module that is steered."""
        return self._host[0]

    @property
    def weight(self) -> Tensor:
        """Raise AttributeError: PEFT layers return the weight of the layer they wrap, and this one wraps none."""
        raise AttributeError("a SteeringLayer has no weight and no bias")

    bias = weight  # pyright: ignore[reportIncompatibleMethodOverride]  the same constant for both


def steer(host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of a host: pass its hidden states through the steering layer below it."""
    layer: Any = host._modules[CHILD]
    if isinstance(output, Tensor):
        return layer(output)
    if not isinstance(hidden := hidden_of(output), Tensor):
        returned = f"{type(host).__name__} returns a {type(output).__name__}"
        raise ActshiftError(f"{returned}, not a tensor or a tuple that starts with one; choose another site.")
    return with_hidden(output, layer(hidden))


def steer_input(host: nn.Module, args: tuple[Any, ...]) -> Any:
    """Forward pre-hook of a host that is steered at its input: pass its first argument through the layer below it."""
    layer: Any = host._modules[CHILD_AT_INPUT]
    if not args or not isinstance(args[0], Tensor):
        raise ActshiftError(f"{type(host).__name__} is called without a tensor to steer; choose another site.")
    return (layer(args[0]), *args[1:])


def build_shift(target: Target) -> Shift:
    """Return the fresh module that computes the shift of an intervention at its host."""
    return target.intervention.adapter.build(target.host.width, target.host.heads)


def tensor_shapes(targets: Sequence[Target]) -> dict[str, Shape]:
    """Return shapes of the tensors that an adapter makes at its hosts, by the name they are saved under."""
    with torch.device("meta"):
        return {
            f"{target.host.name}.{child_of(target.host)}{CONTAINER}{name}": tuple(tensor.shape)
            for target in targets
            for name, tensor in build_shift(target).state_dict().items()
        }


def child_of(host: Host) -> str:
    """Return the name of the steering layer below a host."""
    return CHILD_AT_INPUT if host.at_input else CHILD


def layer_at(host: Host) -> SteeringLayer:
    """Return the steering layer below a host; attach one on the first call.

    Raises:
        ActshiftError: if the host has another child module of that name.
    """
    child = child_of(host)
    existing = host.module._modules.get(child)
    if existing is None:
        return SteeringLayer(host)
    if not isinstance(existing, SteeringLayer):
        raise ActshiftError(f"{host.name} already has a child module {child!r} that does not belong to actshift.")
    return existing


def steering_layers(model: nn.Module) -> dict[str, SteeringLayer]:
    """Return every steering layer of a model by its qualified name, in forward order."""
    return {name: module for name, module in modules_around_adapters(model) if isinstance(module, SteeringLayer)}
