"""The config of a steering adapter, which users create and adapter_config.json stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from peft import LoraConfig, PeftConfig
from peft.utils.peft_types import PeftType

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError, did_you_mean
from actshift.sites import Positions
from actshift.tuner.checkpoint import Checkpoint
from actshift.tuner.intervention import Intervention, interventions_from

PEFT_TYPE = "ACTSHIFT"  # transformers finds an adapter's tensors by this word in their names ("actshift")
FORMAT = 1
PEFT_FIELDS = (*(item.name for item in fields(PeftConfig)), "modules_to_save")
WRITTEN_FIELDS = ("blocks", "format", "d_model", "num_blocks")
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
        blocks: the qualified name of the list of blocks, if it cannot be found in the model.
        format, d_model, num_blocks: written on saving. Loading into a model of another width or depth is an error.
        task_type, modules_to_save, …: fields of every PEFT config. For LoRA's fields, use JointConfig.

    Raises:
        ActshiftError: for an unknown field, site or adapter, an invalid rank, or a format that a newer version wrote.

    Source: arXiv 2603.00425; its sites are "post-block", "post-MLP" and "pre-MLP". docs/method.md#sites.

    >>> SteeringConfig(rank=4, layers=range(-2, 0)).to_dict()["layers"]
    [-2, -1]
    """

    own_fields: ClassVar[tuple[str, ...]] = (*PEFT_FIELDS, "rank", "init", *SHORTHAND, "interventions", *WRITTEN_FIELDS)

    rank: int | None = None
    init: str | None = None
    adapter: Adapter | dict[str, Any] | None = None
    site: str | None = None
    layers: Sequence[int] | None = None
    positions: Positions | dict[str, Any] | None = None
    interventions: Sequence[Intervention | dict[str, Any]] | None = None
    blocks: str | None = None
    format: int = FORMAT
    d_model: int | None = None
    num_blocks: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> SteeringConfig:
        """Refuse unknown fields, of which PEFT would only warn. A file with the field `steering` is a JointConfig."""
        if cls is SteeringConfig and "steering" in kwargs:
            cls = next(subclass for subclass in cls.__subclasses__() if "steering" in subclass.own_fields)
        factories = {item.name: item.default_factory for item in fields(cls) if item.default_factory is not MISSING}
        for name, value in kwargs.items():
            default = factories[name]() if name in factories else getattr(cls, name, MISSING)
            if name not in cls.own_fields and value != default:
                raise ActshiftError(
                    f"Unknown field {name!r} of {cls.__name__}{did_you_mean(name, cls.own_fields)}; allowed are "
                    f"{', '.join(cls.own_fields)}. If a newer actshift wrote the file: pip install -U actshift."
                )
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            newer = f"This adapter has format {self.format!r} and this actshift reads format {FORMAT}"
            raise ActshiftError(f"{newer}. A newer actshift wrote it: pip install -U actshift.")
        super().__post_init__()  # sets LoRA's peft_type
        self.peft_type = PeftType(PEFT_TYPE)
        self.all_interventions: tuple[Intervention, ...] = ()
        self._set_interventions()
        self.stored: Checkpoint | None = None  # the tensors in the folder that the config was read from

    def _set_interventions(self) -> None:
        given: dict[str, Any] = {name: getattr(self, name) for name in (*SHORTHAND, "rank", "init")}
        given = {name: value for name, value in given.items() if value is not None}
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

    def to_dict(self) -> dict[str, Any]:
        """Return the content of adapter_config.json: the fields of PEFT and actshift, without LoRA's."""
        return {name: getattr(self, name) for name in (*PEFT_FIELDS, *WRITTEN_FIELDS)} | self.steering_dict()

    def steering_dict(self) -> dict[str, Any]:
        """Return the interventions ready for JSON; a single one is written as its own fields."""
        stored = [intervention.to_dict() for intervention in self.all_interventions]
        return stored[0] if len(stored) == 1 else {"interventions": stored}


def _with_shorthand(adapter: Any, low_rank: dict[str, Any]) -> Any:
    if adapter is None:
        return LowRank(**low_rank)
    for name, value in low_rank.items():
        if value != (adapter.get(name) if isinstance(adapter, dict) else getattr(adapter, name, None)):
            shorthand = f"{name} is shorthand for LowRank({name}=…); pass it in one place."
            raise ActshiftError(f"{name}={value!r} contradicts adapter={adapter!r}. {shorthand}")
    return adapter
