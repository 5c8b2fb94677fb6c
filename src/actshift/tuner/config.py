"""The configs of steering and joint adapters, which users create and adapter_config.json stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, cast

from peft import LoraConfig, PeftConfig
from peft.utils.peft_types import PeftType

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError, check_fields, first_line, show
from actshift.orthogonality import Orthogonality
from actshift.sites import Positions
from actshift.tuner.checkpoint import Checkpoint
from actshift.tuner.fields import check_field_values
from actshift.tuner.intervention import Intervention, interventions_from

PEFT_TYPE = "ACTSHIFT"  # transformers finds an adapter's tensors by this word in their names ("actshift")
FORMAT = 1
PEFT_FIELDS = (*(item.name for item in fields(PeftConfig)), "modules_to_save")
WRITTEN_FIELDS = ("blocks", "format", "d_model", "num_blocks")
LORA_FIELDS = tuple(
    "r lora_alpha lora_dropout target_modules target_parameters exclude_modules layers_to_transform layers_pattern "
    "rank_pattern alpha_pattern use_rslora fan_in_fan_out init_lora_weights".split()
)  # without variants such as DoRA, which are not tested together with steering
SHORTHAND = ("adapter", "site", "layers", "positions")  # fields of a single intervention, also taken directly


@dataclass
class SteeringConfig(LoraConfig):
    """A PEFT config that steers activations: h ← h + s·Δ(h) at a site of the chosen blocks, or at several sites.

    Without arguments it is the paper's method: a nonlinear map of rank 8 after every block, at every position.

    Args:
        rank, init: shorthand for `adapter=LowRank(rank=…, init=…)`.
        adapter: the shift Δ: `LowRank(...)`, `Vector()`, `LoReFT(...)` or another class of `actshift.adapters`.
        site: "post_block" (after both residual additions, the default), "post_mlp" or "post_attention" (the output of
            that branch before it is added), "attention_heads" (the input of the attention's output projection).
        layers: a list or range of block indices, negative ones from the end; None is every block.
        positions: the tokens to steer, `Positions.all()` by default.
        interventions: a list of `Intervention(adapter, site, layers, positions)`, instead of the four fields above.
        strength: s of a loaded or fresh adapter, until `set_strength` changes it; `actshift.calibrate` finds one.
        blocks: the qualified name of the list of blocks, if it cannot be found in the model.
        format, d_model, num_blocks: written on saving. Loading into a model of another width or depth is an error.
        task_type, modules_to_save, …: fields of every PEFT config. For LoRA's fields, use JointConfig.

    Raises:
        ActshiftError: for an unknown field, site or adapter, an invalid rank, or a format that a newer version wrote.

    Source: arXiv 2603.00425; its sites are "post-block", "post-MLP" and "pre-MLP". docs/method.md#sites.

    >>> SteeringConfig(rank=4, layers=range(-2, 0)).to_dict()["layers"]
    [-2, -1]
    """

    own_fields: ClassVar[tuple[str, ...]] = (
        *(*PEFT_FIELDS, "rank", "init", *SHORTHAND),
        *("interventions", "strength", *WRITTEN_FIELDS),
    )

    rank: int | None = None
    init: str | None = None
    adapter: Adapter | dict[str, Any] | None = None
    site: str | None = None
    layers: Sequence[int] | None = None
    positions: Positions | dict[str, Any] | None = None
    interventions: Sequence[Intervention | dict[str, Any]] | None = None
    strength: float = 1.0
    blocks: str | None = None
    format: int = FORMAT
    d_model: int | None = None
    num_blocks: int | None = None

    def __new__(cls, /, *args: Any, **kwargs: Any) -> SteeringConfig:
        """Refuse unknown fields, of which PEFT would only warn. A file with the field `steering` is a JointConfig."""
        if cls is SteeringConfig and "steering" in kwargs:
            cls = JointConfig
        factories = {item.name: item.default_factory for item in fields(cls) if item.default_factory is not MISSING}
        for name, value in kwargs.items():
            default = factories[name]() if name in factories else getattr(cls, name, MISSING)
            if name not in cls.own_fields and value != default:
                check_fields(cls.__name__, [name], cls.own_fields)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if type(self.format) is not int or self.format != FORMAT:
            newer = f"This adapter has format {show(self.format)} and this actshift reads format {FORMAT}"
            raise ActshiftError(f"{newer}. A newer actshift wrote it: pip install -U actshift.")
        check_field_values(vars(self), self.own_fields)
        self._convert_fields()
        try:
            super().__post_init__()  # sets LoRA's peft_type
        except ValueError as error:  # two fields of LoRA contradict each other
            raise ActshiftError(first_line(error)) from error
        self.peft_type = PeftType(PEFT_TYPE)
        self.all_interventions: tuple[Intervention, ...] = ()
        self._set_interventions()
        self.stored: Checkpoint | None = None  # the tensors in the folder that the config was read from

    def _convert_fields(self) -> None:
        if self.modules_to_save is not None:
            self.modules_to_save = list(dict.fromkeys(self.modules_to_save))  # PEFT extends the list of a classifier

    def _set_interventions(self) -> None:
        names = (*SHORTHAND, "rank", "init")
        given: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.interventions is None:
            low_rank = {name: given.pop(name) for name in ("rank", "init") if name in given}
            self.all_interventions = (Intervention(_with_shorthand(given.pop("adapter", None), low_rank), **given),)
        elif given:
            raise ActshiftError(f"interventions cannot be combined with {', '.join(given)}; pass one of the two.")
        else:
            self.all_interventions = interventions_from(self.interventions)
        single = self.all_interventions[0] if len(self.all_interventions) == 1 else None
        self.interventions = None if single else self.all_interventions
        for name in SHORTHAND:
            setattr(self, name, getattr(single, name, None))
        self.layers = None if self.layers is None else list(self.layers)
        self.rank, self.init = getattr(self.adapter, "rank", None), getattr(self.adapter, "init", None)

    def meaning(self) -> dict[str, Any]:
        """Return the fields on which the effect of trained tensors depends, unlike the init."""
        steering = [intervention.to_dict() for intervention in self.all_interventions]
        for intervention in steering:
            intervention["adapter"].pop("init", None)
        return {"steering": steering, "strength": self.strength}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of adapter_config.json: the fields of PEFT and actshift, without LoRA's."""
        values = {name: getattr(self, name) for name in (*PEFT_FIELDS, *WRITTEN_FIELDS)}
        return values | self.steering_dict() | self.strength_dict()

    def steering_dict(self) -> dict[str, Any]:
        """Return the interventions ready for JSON; a single one is written as its own fields."""
        stored = [intervention.to_dict() for intervention in self.all_interventions]
        return stored[0] if len(stored) == 1 else {"interventions": stored}

    def strength_dict(self) -> dict[str, float]:
        """Return the strength, or nothing if it is 1: versions of actshift that do not know it then read the config."""
        return {} if self.strength == 1 else {"strength": self.strength}


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

    own_fields: ClassVar = (*PEFT_FIELDS, *LORA_FIELDS, "steering", "orthogonality", "strength", *WRITTEN_FIELDS)

    target_modules: list[str] | str | None = "all-linear"
    steering: SteeringConfig | dict[str, Any] | None = None
    orthogonality: Orthogonality | dict[str, Any] | None = field(default_factory=Orthogonality)

    def _convert_fields(self) -> None:
        super()._convert_fields()
        steering: Any = SteeringConfig() if self.steering is None else self.steering
        self.steering = steering = SteeringConfig(**steering) if isinstance(steering, dict) else steering
        if not isinstance(steering, SteeringConfig) or isinstance(steering, JointConfig):
            raise ActshiftError(
                f"steering must be a SteeringConfig such as SteeringConfig(rank=8), got {show(steering)}."
            )
        if isinstance(self.orthogonality, dict):
            self.orthogonality = Orthogonality.from_dict(self.orthogonality)
        if not isinstance(cast(Any, self.orthogonality), Orthogonality | None):
            raise ActshiftError(f"orthogonality must be Orthogonality(…) or None, got {show(self.orthogonality)}.")
        if not self.target_modules and not self.target_parameters:
            allowed = '"all-linear" (the default) or a list of names. For steering alone, use SteeringConfig'
            raise ActshiftError(f"JointConfig needs target_modules for its LoRA half: {allowed}.")
        self.blocks = self.blocks or steering.blocks
        self.strength = steering.strength if self.strength == 1 else self.strength

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
        rule = self.rule.to_dict() if self.rule else None
        return {**values, "steering": steering, "orthogonality": rule, **self.strength_dict()}

    def meaning(self) -> dict[str, Any]:
        """Return the fields on which the effect of trained tensors depends."""
        names = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
        return super().meaning() | {name: getattr(self, name) for name in names}

    def weights_config(self) -> LoraConfig:
        """Return the LoRA half as PEFT's own config, which does not need actshift."""
        known = {item.name for item in fields(LoraConfig)} - {"peft_type"}
        return LoraConfig(**{name: getattr(self, name) for name in (*PEFT_FIELDS, *LORA_FIELDS) if name in known})

    def activations_config(self) -> SteeringConfig:
        """Return the steering half as a separate config."""
        names = "task_type modules_to_save base_model_name_or_path revision inference_mode strength".split()
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, "blocks", "d_model", "num_blocks")}
        return SteeringConfig(interventions=self.all_interventions, **values)


def _with_shorthand(adapter: Any, low_rank: dict[str, Any]) -> Any:
    if adapter is None:
        return LowRank(**low_rank)
    for name, value in low_rank.items():
        if value != (adapter.get(name) if isinstance(adapter, dict) else getattr(adapter, name, None)):
            shorthand = f"{name} is shorthand for LowRank({name}=…); pass it in one place."
            raise ActshiftError(f"{name}={show(value)} contradicts adapter={adapter!r}. {shorthand}")
    return adapter
