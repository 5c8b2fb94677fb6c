"""Joint adaptation: one config for LoRA on the weights and steering of the activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from peft import LoraConfig

from actshift.errors import ActshiftError
from actshift.orthogonality import Orthogonality
from actshift.tuner.config import PEFT_FIELDS, WRITTEN_FIELDS, SteeringConfig

LORA_FIELDS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "fan_in_fan_out",
    "init_lora_weights",
)
"""What of LoRA a JointConfig takes; its variants (DoRA and the like) are not tried together with steering."""


@dataclass
class JointConfig(SteeringConfig):
    """A PEFT config that trains LoRA and steering together, by default under the paper's orthogonality rule.

    W ← W + (α/r)·B A on the matched weights, h ← h + s·Δ(h) at the steered sites, and W_down ⟂ col(B) with B the LoRA-B
    of the block's MLP output map, so that the steering half reads only what the weights' half did not write.

    Args:
        r, lora_alpha, target_modules, …: LoRA's own (`LORA_FIELDS`); every linear map by default.
        steering: the other half, a SteeringConfig.
        orthogonality: the rule between them, or None for none.
        task_type, modules_to_save, …: as in every PEFT config.

    Raises ActshiftError for an unknown field, for steering that is no SteeringConfig; at a model, where no steered
    block has LoRA on its MLP output map, since there would be nothing to be orthogonal to.
    Source: arXiv 2603.00425, joint adaptation.

    >>> JointConfig(r=4, steering=SteeringConfig(rank=2)).orthogonality.side
    'read'
    """

    target_modules: list[str] | str | None = "all-linear"
    steering: SteeringConfig | dict[str, Any] | None = None
    orthogonality: Orthogonality | dict[str, Any] | None = field(default_factory=Orthogonality)

    @classmethod
    def own_fields(cls) -> list[str]:
        """Return the names that this config takes, of all that it inherits."""
        return [*PEFT_FIELDS, *LORA_FIELDS, "steering", "orthogonality", *WRITTEN_FIELDS]

    def __post_init__(self) -> None:
        """Check both halves."""
        if self.steering is None:
            self.steering = SteeringConfig()
        if isinstance(self.steering, dict):
            self.steering = SteeringConfig(**self.steering)
        if not isinstance(self.steering, SteeringConfig) or isinstance(self.steering, JointConfig):
            raise ActshiftError(
                f"steering must be a SteeringConfig such as SteeringConfig(rank=8), got {self.steering!r}."
            )
        if isinstance(self.orthogonality, dict):
            self.orthogonality = Orthogonality.from_dict(self.orthogonality)
        if not isinstance(self.orthogonality, Orthogonality | None):
            raise ActshiftError(f"orthogonality must be Orthogonality(…) or None, got {self.orthogonality!r}.")
        if not self.target_modules and not self.target_parameters:
            raise ActshiftError(
                'a JointConfig without target_modules has no LoRA half; name some ("all-linear", the default), or '
                "use SteeringConfig."
            )
        self.blocks = self.blocks or self.steering.blocks
        super().__post_init__()

    @property
    def rule(self) -> Orthogonality | None:
        """The orthogonality rule in its typed form."""
        assert not isinstance(self.orthogonality, dict)  # since __post_init__
        return self.orthogonality

    def _set_interventions(self) -> None:
        assert isinstance(self.steering, SteeringConfig)
        self.all_interventions = self.steering.all_interventions

    def to_dict(self) -> dict[str, Any]:
        """Return what adapter_config.json holds: PEFT's own fields, LoRA's, and the steering half by itself."""
        assert isinstance(self.steering, SteeringConfig)
        names = (*PEFT_FIELDS, *LORA_FIELDS, *WRITTEN_FIELDS)
        values = {name: getattr(self, name) for name in names}
        values["target_modules"] = _sorted(self.target_modules)
        rule = self.rule.to_dict() if self.rule else None
        return {**values, "steering": self.steering.steering_dict(), "orthogonality": rule}

    def weights_config(self) -> LoraConfig:
        """Return the LoRA half as PEFT's own config, which needs no actshift."""
        values = {name: getattr(self, name) for name in (*PEFT_FIELDS, *LORA_FIELDS) if name != "peft_type"}
        known = {item.name for item in fields(LoraConfig)}
        return LoraConfig(**{name: value for name, value in values.items() if name in known})

    def activations_config(self) -> SteeringConfig:
        """Return the steering half as a config of its own."""
        names = (
            "task_type",
            "modules_to_save",
            "base_model_name_or_path",
            "revision",
            "inference_mode",
            "d_model",
            "num_blocks",
        )
        values = {name: getattr(self, name) for name in names}
        return SteeringConfig(interventions=self.all_interventions, blocks=self.blocks, **values)


def _sorted(targets: Sequence[str] | str | None) -> Any:
    return targets if targets is None or isinstance(targets, str) else sorted(targets)
