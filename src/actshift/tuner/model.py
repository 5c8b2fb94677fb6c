"""The tuner: how PEFT puts steering layers on a model, and what it must not do with them."""

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
from actshift.tuner.alone import alone
from actshift.tuner.checkpoint import PEFT_PREFIX
from actshift.tuner.checks import check_adapter, lora_shapes, tensor_shapes
from actshift.tuner.config import SteeringConfig
from actshift.tuner.controls import set_strength, steering_layers, strength
from actshift.tuner.intervention import Target, targets
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.rule import constrain, find_writers
from actshift.tuner.layer import BASE_ROW, CONTAINER, EVERYWHERE, SteeringLayer, layer_at
from actshift.tuner.prompt_scope import install, remove
from actshift.tuner.walking import modules_around_adapters


class SteeringModel(LoraModel):
    """PEFT's tuner for SteeringConfig: a steering layer below each resolved host, and never a wrapper.

    It is a LoraModel so that steering, LoRA or both are one PEFT type, one model and one folder.
    """

    prefix = "lora_"  # transformers finds an adapter's tensors by one prefix a type, so ours begin as LoRA's do
    tuner_layer_cls = (LoraLayer, SteeringLayer)  # type: ignore[assignment]
    set_strength = set_strength
    strength = strength

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Resolve and check everything first, so that a config which does not fit leaves the model untouched."""
        with alone(model, adapter_name):
            self._inject(model, adapter_name, *args, **kwargs)

    def _inject(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        config = cast(SteeringConfig, self.peft_config[adapter_name])
        try:
            found = targets(model, config.all_interventions, config.blocks)
            num_blocks = len(find_blocks(model, config.blocks))
            d_model = resolve(model, layers=[0], blocks=config.blocks)[0].width
            shapes, writers = tensor_shapes(found), {}
            if isinstance(config, JointConfig):
                _maybe_include_all_linear_layers(config, model)
                adapts = partial(self._adapts_weights, config)
                writers = find_writers(model, config, found, adapts)
                shapes |= lora_shapes(model, config, adapts)
            check_adapter(model, adapter_name, config, shapes, num_blocks, d_model)
        except ActshiftError:
            del self.peft_config[adapter_name]
            if not self.peft_config:
                setattr(model, "_hf_peft_config_loaded", False)  # noqa: B010  transformers says True before it tries
            raise
        self._targets: dict[str, list[Target]] = {}
        for target in found:
            self._targets.setdefault(target.host.name, []).append(target)
        kwargs.pop("state_dict", None)  # the config alone says where to steer
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        config.d_model, config.num_blocks = d_model, num_blocks
        if isinstance(config, JointConfig):
            current = targets(model, config.all_interventions, config.blocks)  # LoRA has replaced modules
            constrain(model, adapter_name, config, current, writers)
        if any(one.positions != EVERYWHERE for one in config.all_interventions):
            install(model)

    def _adapts_weights(self, config: SteeringConfig, key: str) -> bool:
        found = isinstance(config, JointConfig) and super()._check_target_module_exists(config, key)
        return bool(found) and not isinstance(found, _ExcludedModule)

    def _check_target_module_exists(self, peft_config: SteeringConfig, key: str) -> bool:  # type: ignore[override]
        return key in self._targets or self._adapts_weights(peft_config, key)

    def _prepare_adapter_config(self, peft_config: SteeringConfig, model_config: Any) -> SteeringConfig:
        return peft_config  # no target_modules means no LoRA; LoraModel would fill in q and v

    def _create_and_replace(  # type: ignore[override]
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
            for layer in below if wrapper is not target else ():  # LoRA must see, and be seen, as part of the host
                layer.detach_from_host()
                layer.attach_to(wrapper)
        for wanted in self._targets.get(current_key, ()):
            host = replace(wanted.host, module=getattr(parent, target_name))
            layer_at(host).update_layer(adapter_name, wanted)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Activate one adapter or several, in a time that does not depend on how many others there are."""
        layers = cast(Any, self.tuner_layer_cls)
        set_adapter(self._around_adapters(), adapter_name, inference_mode=inference_mode, layer_cls=layers)
        self.active_adapter = adapter_name

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; where it was active another one is then, as PEFT does it."""
        was_active = adapter_name in self.active_adapters
        with alone(self.model, adapter_name):
            super().delete_adapter(adapter_name)
        if was_active and self.active_adapters:
            self.set_adapter(self.active_adapters)  # which was out of sight, and is to train

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let adapters train, or freeze them, whether they are active or not."""
        set_requires_grad(self._around_adapters(), adapter_names=adapter_names, requires_grad=requires_grad)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        with alone(self.model, adapter_name):
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)

    def _around_adapters(self) -> Any:
        """Return what PEFT's functions can walk in the model's place, of which they ask for the modules only."""
        found = [module for _, module in modules_around_adapters(self.model)]
        return SimpleNamespace(modules=lambda: found)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        self._check_rows(names)
        beams = kwargs.get("num_beams") or 1
        rows = [name for name in names for _ in range(beams)]
        layers = steering_layers(self).values()
        hooks = [
            module.register_forward_pre_hook(_with_adapter_names(rows), with_kwargs=True)
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
        if CONTAINER in key:  # the name is not next to last here, as PEFT assumes
            return key.replace(f"{CONTAINER}{adapter_name}.", CONTAINER, 1)
        return super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: SteeringConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Raise for tensors that are missing or fit nowhere, which PEFT would only mention in a warning."""
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        present = {name.removeprefix(PEFT_PREFIX) for name in mapped}
        known = {name.removeprefix(PEFT_PREFIX) for name in model.state_dict()}
        own = (name for name in known if cls.prefix in name and f".{adapter_name}." in name)
        missing = sorted(name for name in own if name not in present)
        foreign = sorted(present - known)
        for names, what in ((missing, "lacks"), (foreign, "holds the foreign")):
            if names:
                raise ActshiftError(
                    f"the tensors for adapter {adapter_name!r} do not fit this model: what was given {what} "
                    f"{names[0]!r} ({len(names)} in all)."
                )
        return mapped

    def _check_merge_allowed(self) -> NoReturn:
        raise ActshiftError(
            "steering cannot be merged: it shifts what a block returns, with all that the skip carries, and no "
            "weight matrix of the block sees that sum; keep the adapter attached, or take it off with unload(). The "
            "LoRA half of a joint adapter merges once it is saved alone: actshift.save_half(model, 'weights', folder)."
        )

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> nn.Module:
        model = cast(nn.Module, super()._unload_and_optionally_merge(merge, *args, **kwargs))
        remove(model)
        for layer in steering_layers(model).values():
            layer.detach_from_host()
        return model

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: a weighted sum of adapters is not an adapter here; LoRA's version would make untrained ones."""
        raise ActshiftError(
            "add_weighted_adapter cannot combine steering adapters into one; activate several with "
            "model.base_model.set_adapter([...]) and weigh each with model.set_strength(s, adapter_name=...)."
        )


def _with_adapter_names(names: Sequence[str]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return _adapter_names_pre_forward_hook(module, args, kwargs, adapter_names=names)

    return hook
