"""The PEFT tuner that attaches steering layers to a model and manages their adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from peft.tuners.lora import LoraLayer, LoraModel
from peft.tuners.lora.model import _adapter_names_pre_forward_hook
from peft.tuners.tuners_utils import _ExcludedModule, _maybe_include_all_linear_layers, set_adapter, set_requires_grad
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import find_blocks, resolve
from actshift.tuner.checkpoint import PEFT_PREFIX
from actshift.tuner.checks import check_adapter, lora_shapes, tensor_shapes
from actshift.tuner.config import SteeringConfig
from actshift.tuner.controls import set_strength, strength
from actshift.tuner.intervention import Target, targets
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.rule import Writers, constrain, find_writers
from actshift.tuner.layer import BASE_ROW, CONTAINER, EVERYWHERE, SteeringLayer, layer_at, steering_layers
from actshift.tuner.prompt_scope import install_prompt_scopes, remove_prompt_scopes
from actshift.tuner.traversal import hide_other_adapters, modules_around_adapters


class SteeringModel(LoraModel):
    """PEFT's tuner for SteeringConfig: it attaches a steering layer below each host and wraps no module.

    It extends LoraModel, because steering, LoRA and both together share one PEFT type, one model and one folder.
    """

    prefix = "lora_"  # transformers finds an adapter's tensors by one prefix for each type, so it must be LoRA's
    tuner_layer_cls = (LoraLayer, SteeringLayer)  # pyright: ignore[reportAssignmentType]  PEFT's isinstance takes a tuple
    set_strength = set_strength
    strength = strength

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Attach an adapter to the model.

        Everything is resolved and checked first.

        Raises:
            ActshiftError: if the config does not fit the model, which then stays unchanged.
        """
        with hide_other_adapters(model, adapter_name):
            config = cast(SteeringConfig, self.peft_config[adapter_name])
            try:
                steered, writers = self._resolve(model, adapter_name, config)
            except ActshiftError:
                del self.peft_config[adapter_name]
                if not self.peft_config:
                    setattr(model, "_hf_peft_config_loaded", False)  # noqa: B010  transformers sets True before it tries
                raise
            self._targets: dict[str, list[Target]] = {}
            for target in steered:
                self._targets.setdefault(target.host.name, []).append(target)
            kwargs.pop("state_dict", None)  # the config alone determines the hosts
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            if isinstance(config, JointConfig):
                wrapped = targets(model, config.all_interventions, config.blocks)  # LoRA has replaced modules
                constrain(model, adapter_name, config, wrapped, writers)
            if any(intervention.positions != EVERYWHERE for intervention in config.all_interventions):
                install_prompt_scopes(model)

    def _resolve(self, model: nn.Module, adapter_name: str, config: SteeringConfig) -> tuple[list[Target], Writers]:
        """Check the config, record the model's size in it, and return the hosts and the MLP output maps with LoRA."""
        steered = targets(model, config.all_interventions, config.blocks)
        num_blocks = len(find_blocks(model, config.blocks))
        d_model = resolve(model, layers=[0], blocks=config.blocks)[0].width
        shapes, writers = tensor_shapes(steered), {}
        if isinstance(config, JointConfig):
            _maybe_include_all_linear_layers(config, model)
            adapts = partial(self._adapts_weights, config)
            writers = find_writers(model, config, steered, adapts)
            shapes |= lora_shapes(model, config, adapts)
        check_adapter(model, adapter_name, config, shapes, num_blocks, d_model)
        config.d_model, config.num_blocks = d_model, num_blocks
        return steered, writers

    def _adapts_weights(self, config: SteeringConfig, key: str) -> bool:
        """Return True if the LoRA half of a joint adapter adapts the module called `key`."""
        match: Any = isinstance(config, JointConfig) and super()._check_target_module_exists(config, key)
        return bool(match) and not isinstance(match, _ExcludedModule)

    def _check_target_module_exists(self, peft_config: Any, key: str) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return key in self._targets or self._adapts_weights(peft_config, key)

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:
        return peft_config  # without target_modules, LoraModel would adapt q and v

    def _create_and_replace(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        peft_config: SteeringConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("parameter_name") or self._adapts_weights(peft_config, current_key):
            below = [child for child in target.children() if isinstance(child, SteeringLayer)]
            super()._create_and_replace(
                peft_config, adapter_name, target, target_name, parent, current_key=current_key, **kwargs
            )
            wrapper = getattr(parent, target_name)
            for layer in below if wrapper is not target else ():  # steering must include what LoRA adds
                layer.detach_from_host()
                layer.attach_to(wrapper)
        for steered in self._targets.get(current_key, ()):
            host = replace(steered.host, module=getattr(parent, target_name))
            layer_at(host).update_layer(adapter_name, steered)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Activate one adapter or several, in a time that does not depend on how many others are attached."""
        layers = cast(Any, self.tuner_layer_cls)
        set_adapter(self._around_adapters(), adapter_name, inference_mode=inference_mode, layer_cls=layers)
        self.active_adapter = adapter_name

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Make adapters trainable or freeze them, even inactive ones."""
        set_requires_grad(self._around_adapters(), adapter_names=adapter_names, requires_grad=requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter. If it was active, another one is activated, as in PEFT."""
        was_active = adapter_name in self.active_adapters
        with hide_other_adapters(self.model, adapter_name):
            super().delete_adapter(adapter_name)
        if was_active and self.active_adapters:
            self.set_adapter(self.active_adapters)  # PEFT could not make it trainable while it was hidden

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        with hide_other_adapters(self.model, adapter_name):
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)

    def _around_adapters(self) -> Any:
        """Return a stand-in for the model whose `modules()` does not enter adapters, for functions of PEFT."""
        modules = [module for _, module in modules_around_adapters(self.model)]
        return SimpleNamespace(modules=lambda: modules)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Steer each row with its own adapter of `adapter_names`, until the block ends."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        self._check_rows(names)
        beams = kwargs.get("num_beams") or 1
        rows = [name for name in names for _ in range(beams)]
        layers = steering_layers(self).values()
        select_adapters = partial(_adapter_names_pre_forward_hook, adapter_names=rows)
        hooks = [
            module.register_forward_pre_hook(select_adapters, with_kwargs=True)
            for _, module in modules_around_adapters(self)
            if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper)
        ]
        try:
            for layer in layers:
                layer.steer_rows(rows)
            yield
        finally:
            for layer in layers:
                layer.steer_rows(None)
            for hook in hooks:
                hook.remove()

    def _check_rows(self, names: Sequence[str]) -> None:
        if self.training:
            raise ActshiftError("adapter_names works in evaluation only; call model.eval() first.")
        unknown = sorted(set(names) - set(self.peft_config) - {BASE_ROW})
        if unknown or not names:
            raise ActshiftError(
                f"adapter_names holds {', '.join(unknown) or 'no name'}; give each row one of "
                f"{', '.join([*self.peft_config, BASE_ROW])}."
            )

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        if CONTAINER in key:  # PEFT expects the adapter's name in the second-to-last place
            return key.replace(f"{CONTAINER}{adapter_name}.", CONTAINER, 1)
        return super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Rename saved tensors to the model's names.

        Raises:
            ActshiftError: for missing and foreign tensors; PEFT would only warn.
        """
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        present = {name.removeprefix(PEFT_PREFIX) for name in mapped}
        known = {name.removeprefix(PEFT_PREFIX) for name in model.state_dict()}
        own = (name for name in known if cls.prefix in name and f".{adapter_name}." in name)
        missing = sorted(name for name in own if name not in present)
        foreign = sorted(present - known)
        for names, problem in ((missing, "lack"), (foreign, "hold the foreign")):
            if names:
                raise ActshiftError(
                    f"The tensors for adapter {adapter_name!r} do not fit this model: they {problem} {names[0]!r} "
                    f"({len(names)} in all)."
                )
        return mapped

    def _check_merge_allowed(self) -> NoReturn:
        raise ActshiftError(
            "Steering adapters cannot be merged: they change the residual stream, and no weight matrix produces it. "
            "Keep the adapter attached, or remove it with unload(). To merge the LoRA half of a joint adapter, save it "
            "alone: actshift.save_half(model, 'weights', folder)."
        )

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> nn.Module:
        model = cast(nn.Module, super()._unload_and_optionally_merge(merge, *args, **kwargs))
        remove_prompt_scopes(model)
        for layer in steering_layers(model).values():
            layer.detach_from_host()
        return model

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ActshiftError, because a weighted sum of steering adapters is not a steering adapter."""
        raise ActshiftError(
            "add_weighted_adapter cannot combine steering adapters into one; activate several with "
            "model.base_model.set_adapter([...]) and weigh each with model.set_strength(s, adapter_name=...)."
        )
