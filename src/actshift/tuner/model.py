"""The PEFT tuner that attaches steering layers to a model and manages their adapters."""

# PEFT's tuners are extended through protected methods.
# pyright: reportPrivateUsage=false, reportIncompatibleMethodOverride=false
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from peft.tuners import tuners_utils
from peft.tuners.lora import LoraLayer, LoraModel
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from actshift.errors import ActshiftError, first_line
from actshift.model_head import CLASSIFIERS, head_of
from actshift.sites import find_blocks, resolve
from actshift.tuner.adapter_names import check_name, check_not_adapted
from actshift.tuner.checkpoint import PEFT_PREFIX, check_tensor
from actshift.tuner.classifier_head import check_head, head_modules
from actshift.tuner.config import JointConfig, SteeringConfig
from actshift.tuner.controls import set_strength, strength
from actshift.tuner.intervention import Target, resolve_targets
from actshift.tuner.joint.rule import Writers, constrain, find_writers
from actshift.tuner.layer import BASE_ROW, CONTAINER, SteeringLayer, layer_at, steering_layers, tensor_shapes
from actshift.tuner.lora_shapes import adapted_modules, lora_shapes
from actshift.tuner.patterns import check_patterns
from actshift.tuner.prompt_scope import check_halves, install_prompt_scopes, remove_prompt_scopes
from actshift.tuner.row_adapters import RowCall, row_hooks
from actshift.tuner.run_state import override
from actshift.tuner.stored_tensors import check_saved_modules, check_stored, copy_new_rows
from actshift.tuner.traversal import hide_other_adapters, modules_around_adapters

SAVED = ".modules_to_save."  # in names of tensors of whole modules that an adapter trains
INPUTS = ("input_ids", "inputs", "inputs_embeds", "pixel_values", "input_features", "input_values")


class SteeringModel(LoraModel):
    """PEFT's tuner for SteeringConfig: it attaches a steering layer below each host and wraps no module.

    It extends LoraModel, because steering, LoRA and both together share one PEFT type, one model and one folder.
    """

    prefix = "lora_"  # transformers finds an adapter's tensors by one prefix for each type, so it must be LoRA's
    tuner_layer_cls = (LoraLayer, SteeringLayer)  # pyright: ignore[reportAssignmentType]  PEFT's isinstance takes a tuple
    set_strength = set_strength
    strength = strength

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        check_not_adapted(model, adapter_name)  # before PEFT replaces the config of an adapter of this name
        super().__init__(model, peft_config, adapter_name, *args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Attach an adapter to the model; everything is resolved and checked first.

        Raises:
            ActshiftError: if the config does not fit the model, which then stays unchanged.
        """
        with hide_other_adapters(model, adapter_name):
            config = cast(SteeringConfig, self.peft_config[adapter_name])
            try:
                steered, writers = self._resolve(model, adapter_name, config)
            except ActshiftError:
                self._forget(model, adapter_name)
                raise
            self._targets: dict[str, list[Target]] = {}
            for target in steered:
                self._targets.setdefault(target.host.name, []).append(target)
            kwargs.pop("state_dict", None)  # the config alone determines the hosts
            try:
                super().inject_adapter(model, adapter_name, *args, **kwargs)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                self._undo_injection(model, adapter_name)
                raise ActshiftError(f"The adapter does not fit {type(model).__name__}: {first_line(error)}") from error
            if isinstance(config, JointConfig):
                wrapped = resolve_targets(model, config.all_interventions, config.blocks)  # LoRA has replaced modules
                constrain(model, adapter_name, config, wrapped, writers)
            if _has_positions(config):
                install_prompt_scopes(model)

    def _forget(self, model: nn.Module, adapter_name: str) -> None:
        del self.peft_config[adapter_name]
        if not self.peft_config:
            setattr(model, "_hf_peft_config_loaded", False)  # noqa: B010  transformers sets True before it tries

    def _undo_injection(self, model: nn.Module, adapter_name: str) -> None:
        """Remove what PEFT has already attached of an adapter that it cannot attach as a whole."""
        if len(self.peft_config) > 1:
            self.delete_adapter(adapter_name)
        else:
            self._unload_and_optionally_merge(merge=False)
            self._forget(model, adapter_name)

    def _resolve(self, model: nn.Module, adapter_name: str, config: SteeringConfig) -> tuple[list[Target], Writers]:
        """Check the config, record the model's size in it, and return the hosts and the MLP output maps with LoRA."""
        steered = resolve_targets(model, config.all_interventions, config.blocks)
        if _has_positions(config):
            check_halves(model)
        size = (len(find_blocks(model, config.blocks)), resolve(model, layers=[0], blocks=config.blocks)[0].width)
        shapes, writers, adapted = tensor_shapes(steered), {}, set[str]()
        if isinstance(config, JointConfig):
            check_patterns(vars(config), names=(name for name, _ in modules_around_adapters(model)))
            tuners_utils._maybe_include_all_linear_layers(config, model)
            adapts = partial(self._adapts_weights, config)
            writers = find_writers(model, config, steered, adapts)
            shapes |= lora_shapes(model, config, adapts)
            adapted = adapted_modules(model, config, adapts)
        check_name(adapter_name, shapes)
        check_saved_modules(config.modules_to_save, adapter_name, shapes)
        if config.stored is not None:
            check_head(model, config.task_type)
            _check_size(model, config, size)
            check_stored(model, config.stored, shapes, config.modules_to_save, adapted)
        config.num_blocks, config.d_model = size
        return steered, writers

    def _adapts_weights(self, config: SteeringConfig, key: str) -> bool:
        """Return True if the LoRA half of a joint adapter adapts the module called `key`."""
        match: Any = isinstance(config, JointConfig) and super()._check_target_module_exists(config, key)
        return bool(match) and not isinstance(match, tuners_utils._ExcludedModule)

    def _check_target_module_exists(self, peft_config: Any, key: str) -> bool:
        return key in self._targets or self._adapts_weights(peft_config, key)

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:
        return peft_config  # without target_modules, LoraModel would adapt q and v

    def _create_and_replace(
        self, config: Any, adapter_name: str, target: Any, name: str, parent: Any, current_key: str, **kwargs: Any
    ) -> None:
        if kwargs.get("parameter_name") or self._adapts_weights(config, current_key):
            below = [child for child in target.children() if isinstance(child, SteeringLayer)]
            super()._create_and_replace(config, adapter_name, target, name, parent, current_key, **kwargs)
            wrapper = getattr(parent, name)
            for layer in below if wrapper is not target else ():  # steering must include what LoRA adds
                layer.detach_from_host()
                layer.attach_to(wrapper)
        for steered in self._targets.get(current_key, ()):
            layer = layer_at(replace(steered.host, module=getattr(parent, name)))
            layer.update_layer(adapter_name, steered, config.strength)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Activate one adapter or several, in a time that does not depend on how many others are attached."""
        layers: Any = self.tuner_layer_cls
        tuners_utils.set_adapter(self._around_adapters(), adapter_name, inference_mode=inference_mode, layer_cls=layers)
        self.active_adapter = adapter_name

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Make adapters trainable or freeze them, even inactive ones."""
        tuners_utils.set_requires_grad(self._around_adapters(), adapter_names, requires_grad)

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
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Generator[None]:
        """Steer each row with its own adapter of `adapter_names` in this thread, until the block ends."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise ActshiftError("adapter_names works in evaluation only; call model.eval() first.")
        unknown = sorted(set(names) - set(self.peft_config) - {BASE_ROW})
        if unknown or not names:
            known = ", ".join([*self.peft_config, BASE_ROW])
            raise ActshiftError(f"adapter_names holds {', '.join(unknown) or 'no name'}; give each row one of {known}.")
        inputs = [*args[:1], *(kwargs[name] for name in INPUTS if isinstance(kwargs.get(name), Tensor))]
        rows = RowCall(names, steering_layers(self.model).values(), len(inputs[0]) if inputs else None)
        with row_hooks(self.model, rows), override(rows=rows):
            yield

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        if CONTAINER in key:  # PEFT expects the adapter's name in the second-to-last place
            return key.replace(f"{CONTAINER}{adapter_name}.", CONTAINER, 1)
        return super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Rename saved tensors to the model's names, and copy the embeddings of new tokens.

        Missing and foreign tensors are errors. PEFT would only warn, and set weights of the base model.
        """
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        named = {name.removeprefix(PEFT_PREFIX): name for name in mapped}
        known = {name.removeprefix(PEFT_PREFIX): name for name in model.state_dict()}
        own = {name for name in known if f".{adapter_name}." in f"{name}." and (cls.prefix in name or SAVED in name)}
        others = {name for name in named.keys() - own if name in known or SAVED not in name}  # PEFT saves SAVED twice
        missing = {name for name in own - named.keys() if cls.prefix in name}
        for names, problem in ((missing, "lack"), (others - known.keys(), "hold the foreign")):
            if names:
                which = f"{problem} {min(names)!r} ({len(names)} in all)"
                raise ActshiftError(f"The tensors for adapter {adapter_name!r} do not fit this model: they {which}.")
        for name in own & named.keys():
            check_tensor(f"The file for adapter {adapter_name!r}", name, mapped[named[name]])
        copy_new_rows(model, {name: mapped[named[name]] for name in others})
        return {known[bare]: mapped[name] for bare, name in named.items() if bare in own}

    def _check_merge_allowed(self) -> NoReturn:
        problem = "Steering adapters cannot be merged: no weight matrix produces what they add to the residual stream"
        fix = "To merge the LoRA half of a joint adapter, save it alone: actshift.save_half(model, 'weights', folder)"
        raise ActshiftError(f"{problem}. {fix}.")

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> nn.Module:
        head = head_modules(self.model) if head_of(self.model) in CLASSIFIERS else []
        for name, module in self.model.named_modules():
            if isinstance(module, AuxiliaryTrainingWrapper) and name not in head:  # a trained head stays, as in PEFT
                module.set_adapter([])
        model = cast(nn.Module, super()._unload_and_optionally_merge(merge, *args, **kwargs))
        remove_prompt_scopes(model)
        for layer in steering_layers(model).values():
            layer.detach_from_host()
        return model

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ActshiftError, because a weighted sum of steering adapters is not a steering adapter."""
        several = "model.base_model.set_adapter([...]) and model.set_strength(s, adapter_name=...)"
        raise ActshiftError(f"add_weighted_adapter cannot combine steering adapters; activate several: {several}.")


def _has_positions(config: SteeringConfig) -> bool:
    return any(intervention.positions.where != "all" for intervention in config.all_interventions)


def _check_size(model: nn.Module, config: SteeringConfig, size: tuple[int, int]) -> None:
    """Check that a saved adapter is for a model of `size` (blocks, width)."""
    if None not in (config.num_blocks, config.d_model) and size != (config.num_blocks, config.d_model):
        trained = f"This adapter is for a model with {config.num_blocks} blocks of width {config.d_model}"
        present = f"{type(model).__name__} has {size[0]} of width {size[1]}"
        raise ActshiftError(
            f"{trained}, and {present}; load it on {config.base_model_name_or_path or 'its base model'}."
        )
