"""Makes the method known to PEFT; imported for this effect, by `actshift.tuner` or right after peft itself.

`PeftType` is a closed enum, and `register_peft_method` accepts only its members, so the member is added in
memory first. A type of its own is a matter of safety: under the type LORA, a load without `import actshift`
would succeed and give wrong logits; under ours it fails with a KeyError.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import peft
from packaging.version import Version
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

from actshift.errors import ActshiftError

PEFT_TYPE = "ACTSHIFT"
SUPPORTED = (Version("0.21"), Version("0.22"))
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def check_peft_version() -> None:
    """Raise ActshiftError outside the range of peft releases that the tuner is tested with.

    Before 0.21 peft freezes and drops one half of an adapter in silence, so an older one is refused, and so is
    a newer one, whose internals nobody has tested.
    """
    low, high = SUPPORTED
    if not low <= Version(peft.__version__) < high:
        raise ActshiftError(
            f"actshift works with peft >= {low}, < {high}, and peft {peft.__version__} is installed: "
            f"pip install 'peft>={low},<{high}'."
        )


def extend_peft_type() -> Any:
    """Return the enum member PeftType.ACTSHIFT, which is made on the first call."""
    if PEFT_TYPE not in PeftType.__members__:
        member = str.__new__(PeftType, PEFT_TYPE)
        member._name_ = PEFT_TYPE
        member._value_ = PEFT_TYPE
        PeftType._member_names_.append(PEFT_TYPE)
        PeftType._member_map_[PEFT_TYPE] = member
        PeftType._value2member_map_[PEFT_TYPE] = member
    return PeftType(PEFT_TYPE)


def register() -> None:
    """Register config and tuner with PEFT; a second call changes nothing."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    check_peft_version()
    peft_type = extend_peft_type()
    if peft_type in PEFT_TYPE_TO_TUNER_MAPPING:
        return
    from actshift.tuner.config import SteeringConfig
    from actshift.tuner.model import SteeringModel

    register_peft_method(
        name=PEFT_TYPE.lower(),
        config_cls=SteeringConfig,
        model_cls=SteeringModel,
        prefix=SteeringModel.prefix,
    )
    _look_beside_the_config()
    _load_alone()


def _look_beside_the_config() -> None:
    """Let every config of ours know which tensors lie beside its file.

    transformers' own `load_adapter` reads a config through `PeftConfig.from_pretrained`, injects, and only logs
    what was missing or foreign. The tensors must be compared before that, and this is the one place that knows
    the folder.
    """
    from actshift.tuner.loading import remember_checkpoint

    original = peft.PeftConfig.from_pretrained.__func__

    def from_pretrained(cls: Any, source: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        config = original(cls, source, subfolder=subfolder, **kwargs)
        hub = {name: value for name, value in kwargs.items() if name in HUB_ARGUMENTS}
        return remember_checkpoint(config, source, subfolder, **hub)

    from_pretrained.__doc__ = original.__doc__
    peft.PeftConfig.from_pretrained = classmethod(from_pretrained)  # type: ignore[assignment]


def _load_alone() -> None:
    """Let `PeftModel.load_adapter` walk through no other adapter of ours than the one that it loads."""
    from actshift.tuner.alone import alone

    original = peft.PeftModel.load_adapter

    @wraps(original)
    def load_adapter(self: Any, model_id: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        training = self.training
        with alone(self, adapter_name):
            result = original(self, model_id, adapter_name, *args, **kwargs)
        if self.training != training:
            self.train(self.training)  # those that were out of sight too
        return result

    peft.PeftModel.load_adapter = load_adapter


register()
