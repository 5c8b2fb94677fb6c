"""Every global object that actshift changes in other libraries, and the registration of its PEFT method.

`PATCHES` lists the changes. The functions that make them are in this file, unless that would close an import
circle; the list names the module of each. Importing this module registers the method and applies the PEFT patches.
"""

from functools import wraps
from typing import Any, NamedTuple, cast

import peft
from packaging.version import Version
from peft.utils import SAFETENSORS_WEIGHTS_NAME, register_peft_method
from peft.utils.peft_types import PeftType

from actshift.errors import ActshiftError, first_line

SUPPORTED = Version("0.21"), Version("0.22")  # peft before 0.21 silently drops one half of a joint adapter
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class Patch(NamedTuple):
    """A change to a global object of another library, or to a method of a user's model."""

    target: str
    applied_by: str
    reason: str
    remove_when: str


PATCHES = (
    Patch(
        "sys.meta_path",
        "actshift._post_import.after_import",
        "Importing peft registers the method, because importing actshift must not import peft, which takes seconds.",
        "PEFT discovers third-party methods, for example through entry points.",
    ),
    Patch(
        "peft.utils.peft_types.PeftType",
        "actshift.tuner.peft_patches.extend_peft_type",
        "register_peft_method takes only members. Without actshift, LORA gives wrong logits; an own type, a KeyError.",
        "register_peft_method accepts new names.",
    ),
    Patch(
        "peft.config.PeftConfig.from_pretrained",
        "actshift.tuner.peft_patches.patch_config_from_pretrained",
        "Tensors must be checked before injection, only this method knows their folder, and transformers only logs.",
        "PEFT and transformers raise for missing and unexpected tensors before injection.",
    ),
    Patch(
        "peft.peft_model.PeftModel.load_adapter",
        "actshift.tuner.peft_patches.patch_load_adapter",
        "PEFT visits all adapters two dozen times to load one, and ignores the config if the name is attached already.",
        "The time PEFT takes to load an adapter does not depend on how many are attached.",
    ),
    Patch(
        "torch.optim.Optimizer.step",
        "actshift.tuner.optimizer_hooks.watch",
        "Penalties and constraints belong to the adapter, so a bare loop and every trainer must apply them.",
        "PEFT calls its tuners around optimiser steps.",
    ),
    Patch(
        "generate of the adapted model instance",
        "actshift.tuner.prompt_scope.patch_generate",
        "forward cannot tell an uncached step, a chunk of the prefill or a check of candidates from a new prompt.",
        "transformers tells forward which tokens are the prompt.",
    ),
)


def check_peft_version() -> None:
    """Raise ActshiftError if the tuner was not tested with the installed release of peft."""
    low, high = SUPPORTED
    if not low <= Version(peft.__version__) < high:
        needed = f"'peft>={low},<{high}'"
        raise ActshiftError(f"actshift needs {needed}, and peft {peft.__version__} is installed: pip install {needed}.")


def extend_peft_type(name: str) -> PeftType:
    """Return the member `name` of the enum PeftType; add it on the first call."""
    if name not in PeftType.__members__:
        enum: Any = PeftType
        member: Any = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        enum._member_names_.append(name)
        enum._member_map_[name] = enum._value2member_map_[name] = member
    return PeftType(name)


def patch_config_from_pretrained() -> None:
    """Make every actshift config that PEFT reads remember the tensors in its folder, for the check before injection."""
    from actshift.tuner.checkpoint import read_adapter_json, read_checkpoint
    from actshift.tuner.config import PEFT_TYPE, SteeringConfig

    original = cast(Any, peft.PeftConfig.from_pretrained).__func__

    @wraps(original)
    def from_pretrained(cls: Any, source: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        if issubclass(cls, SteeringConfig):
            read_adapter_json(source, subfolder, **hub)  # raises clear errors
        try:
            config = original(cls, source, subfolder=subfolder, **kwargs)
        except TypeError as error:  # a field has the name of an argument of PEFT
            if read_adapter_json(source, subfolder, **hub)["peft_type"] != PEFT_TYPE:
                raise
            raise ActshiftError(f"The adapter_config.json of {source} is invalid: {first_line(error)}.") from error
        if isinstance(config, SteeringConfig):
            config.stored = read_checkpoint(source, subfolder, **hub)
        return config

    cast(Any, peft.PeftConfig).from_pretrained = classmethod(from_pretrained)


def patch_load_adapter() -> None:
    """Hide all other steering adapters from `PeftModel.load_adapter` while it loads one, and check a replacing file."""
    from actshift.tuner.traversal import hide_other_adapters

    original = peft.PeftModel.load_adapter

    @wraps(original)
    def load_adapter(self: Any, model_id: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        training = self.training
        check_same_adapter(self.peft_config.get(adapter_name), model_id, kwargs)
        with hide_other_adapters(self, adapter_name):
            result = original(self, model_id, adapter_name, *args, **kwargs)
        if self.training != training:
            self.train(self.training)  # the hidden adapters too
        return result

    peft.PeftModel.load_adapter = load_adapter


def check_same_adapter(config: Any, source: Any, kwargs: dict[str, Any]) -> None:
    """Check a file whose tensors will replace an attached steering adapter's, because PEFT ignores its config.

    Raises:
        ActshiftError: if the file's adapter is of another kind or steers something else, or its values are not finite.
    """
    from actshift.tuner.checkpoint import adapter_file
    from actshift.tuner.config import SteeringConfig

    if not isinstance(config, SteeringConfig):
        return
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    file = adapter_file(str(source), SAFETENSORS_WEIGHTS_NAME, kwargs.get("subfolder"), **hub)
    if config.stored is not None and config.stored.path == file:
        return  # checked before the adapter was attached
    saved: Any = SteeringConfig.from_pretrained(source, subfolder=kwargs.get("subfolder"), **hub)
    if saved.meaning() != config.meaning():
        raise ActshiftError(f"{source} holds another adapter than the attached one. Load it under another name.")
    for _ in saved.stored.tensors():  # checks that they are finite
        pass


def register() -> None:
    """Register the config and the tuner with PEFT and apply the patches; a second call has no effect."""
    check_peft_version()  # before the imports below, which need internals of a supported peft
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    from actshift.tuner.config import PEFT_TYPE, SteeringConfig
    from actshift.tuner.model import SteeringModel

    if extend_peft_type(PEFT_TYPE) not in PEFT_TYPE_TO_TUNER_MAPPING:
        name, prefix = PEFT_TYPE.lower(), SteeringModel.prefix
        register_peft_method(name=name, config_cls=SteeringConfig, model_cls=SteeringModel, prefix=prefix)
        patch_config_from_pretrained()
        patch_load_adapter()


register()
