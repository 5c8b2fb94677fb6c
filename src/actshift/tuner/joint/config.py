"""The config of a joint adapter: LoRA on the weights and steering of the activations."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

from peft import LoraConfig

from actshift.errors import ActshiftError
from actshift.orthogonality import Orthogonality
from actshift.tuner.config import PEFT_FIELDS, WRITTEN_FIELDS, SteeringConfig

LORA_FIELDS = tuple(
    "r lora_alpha lora_dropout target_modules target_parameters exclude_modules layers_to_transform layers_pattern "
    "rank_pattern alpha_pattern use_rslora fan_in_fan_out init_lora_weights".split()
)  # without variants such as DoRA, which are not tested together with steering


@dataclass
class JointConfig(SteeringConfig):
    """A PEFT config that trains LoRA and steering together, by default under the paper's orthogonality rule.

    LoRA adapts the matched weights, W ← W + (α/r)·B A, and steering shifts activations, h ← h + s·Δ(h). The rule keeps
    W_down orthogonal to col(B), where B is the LoRA-B of the block's MLP output map. The steering half then ignores
    everything that the LoRA half writes.

    Args:
        r, lora_alpha, target_modules, …: fields of LoRA (`LORA_FIELDS`); the default adapts every linear map.
        steering: the steering half, a SteeringConfig.
        orthogonality: the rule between the halves; None for no rule.
        task_type, modules_to_save, …: fields of every PEFT config.

    Raises:
        ActshiftError: for an unknown field, or `steering` that is not a SteeringConfig. On attaching, if no steered
            block has LoRA on its MLP output map.

    Source: arXiv 2603.00425, joint adaptation; docs/method.md#joint-rule.

    >>> JointConfig(r=4, steering=SteeringConfig(rank=2)).orthogonality.side
    'read'
    """

    own_fields: ClassVar = (*PEFT_FIELDS, *LORA_FIELDS, "steering", "orthogonality", *WRITTEN_FIELDS)

    target_modules: list[str] | str | None = "all-linear"
    steering: SteeringConfig | dict[str, Any] | None = None
    orthogonality: Orthogonality | dict[str, Any] | None = field(default_factory=Orthogonality)

    def __post_init__(self) -> None:
        steering: Any = SteeringConfig() if self.steering is None else self.steering
        self.steering = steering = SteeringConfig(**steering) if isinstance(steering, dict) else steering
        if not isinstance(steering, SteeringConfig) or isinstance(steering, JointConfig):
            raise ActshiftError(f"steering must be a SteeringConfig such as SteeringConfig(rank=8), got {steering!r}.")
        if isinstance(self.orthogonality, dict):
            self.orthogonality = Orthogonality.from_dict(self.orthogonality)
        if not isinstance(cast(Any, self.orthogonality), Orthogonality | None):
            raise ActshiftError(f"orthogonality must be Orthogonality(…) or None, got {self.orthogonality!r}.")
        if not self.target_modules and not self.target_parameters:
            allowed = '"all-linear" (the default) or a list of names. For steering alone, use SteeringConfig'
            raise ActshiftError(f"JointConfig needs target_modules for its LoRA half: {allowed}.")
        self.blocks = self.blocks or steering.blocks
        super().__post_init__()

    @property
    def rule(self) -> Orthogonality | None:
        """`orthogonality`, which `__post_init__` has converted."""
        return cast(Orthogonality | None, self.orthogonality)

    def _set_interventions(self) -> None:
        self.all_interventions = cast(SteeringConfig, self.steering).all_interventions

    def to_dict(self) -> dict[str, Any]:
        """Return the content of adapter_config.json: the fields of PEFT and LoRA, and the steering half."""
        values = {name: getattr(self, name) for name in (*PEFT_FIELDS, *LORA_FIELDS, *WRITTEN_FIELDS)}
        targets = self.target_modules
        values["target_modules"] = targets if targets is None or isinstance(targets, str) else sorted(targets)
        steering = cast(SteeringConfig, self.steering).steering_dict()
        return {**values, "steering": steering, "orthogonality": self.rule.to_dict() if self.rule else None}

    def weights_config(self) -> LoraConfig:
        """Return the LoRA half as PEFT's own config, which does not need actshift."""
        known = {item.name for item in fields(LoraConfig)} - {"peft_type"}
        return LoraConfig(**{name: getattr(self, name) for name in (*PEFT_FIELDS, *LORA_FIELDS) if name in known})

    def activations_config(self) -> SteeringConfig:
        """Return the steering half as a separate config."""
        names = "task_type modules_to_save base_model_name_or_path revision inference_mode blocks d_model num_blocks"
        values: dict[str, Any] = {name: getattr(self, name) for name in names.split()}
        return SteeringConfig(interventions=self.all_interventions, **values)
