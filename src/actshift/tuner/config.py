"""What a user asks for and what adapter_config.json stores: interventions, by intent and not by module names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from peft import LoraConfig, PeftConfig

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError, did_you_mean
from actshift.sites import Positions
from actshift.tuner.checkpoint import Checkpoint
from actshift.tuner.intervention import Intervention, interventions_from
from actshift.tuner.peft_patches import PEFT_TYPE, extend_peft_type

FORMAT = 1
PEFT_FIELDS = (*(item.name for item in fields(PeftConfig)), "modules_to_save")
WRITTEN_FIELDS = ("blocks", "format", "d_model", "num_blocks")


@dataclass
class SteeringConfig(LoraConfig):
    """A PEFT config that steers activations: h ← h + s·Δ(h) at one site of the chosen blocks, or at several.

    Without arguments it is the paper's method: nonlinear rank 8 after every block, at every position.

    Args:
        rank, init: shorthand for `adapter=LowRank(rank=…, init=…)`.
        adapter: what Δ is, `LowRank(...)`, `Vector()`, `LoReFT(...)` or another of `actshift.adapters`.
        site: "post_block" (after both skips, the default), "post_mlp" or "post_attention" (what that branch adds
            to its skip), "attention_heads" (what goes into the attention's output projection).
        layers: the blocks to steer, as a list or range of indices, negative ones from the end; None is all.
        positions: the tokens to steer, `Positions.all()` by default.
        interventions: several `Intervention(adapter, site, layers, positions)`, in place of the four above.
        blocks: the qualified name of the list of blocks, for a model where it cannot be told.
        format, d_model, num_blocks: written on saving; a model of another width or depth is refused on loading.
        task_type, modules_to_save, …: as in every PEFT config. The fields of LoRA are JointConfig's.

    Raises ActshiftError for an unknown field, site or adapter, a bad rank, and a newer format than this one.
    Source: arXiv 2603.00425; the sites are its §"post-block", "post-MLP" and "pre-MLP".

    >>> SteeringConfig(rank=4, layers=range(-2, 0)).to_dict()["layers"]
    [-2, -1]
    """

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
        """Refuse unknown fields here: PEFT would turn the TypeError of `__init__` into a warning and drop them."""
        if cls is SteeringConfig and "steering" in kwargs:  # PEFT reads every file of ours by this class
            from actshift.tuner.joint.config import JointConfig

            cls = JointConfig
        by_name = {item.name: item for item in fields(cls)}
        own = cls.own_fields()
        for name, value in kwargs.items():
            if name not in own and not (name in by_name and value == _default(by_name[name])):
                raise ActshiftError(
                    f"unknown field {name!r} of {cls.__name__}{did_you_mean(name, own)}; it takes "
                    f"{', '.join(own)}. If a newer actshift wrote the file: pip install -U actshift."
                )
        return object.__new__(cls)

    @classmethod
    def own_fields(cls) -> list[str]:
        """Return the names that this config takes, of all that it inherits."""
        names = [item.name for item in fields(cls)]
        return [name for name in names if name in PEFT_FIELDS or name not in LoraConfig.__dataclass_fields__]

    def __post_init__(self) -> None:
        """Check every field, and turn the shorthand and stored forms into the typed ones."""
        if self.format != FORMAT:
            raise ActshiftError(
                f"this adapter has format {self.format!r} and this actshift reads format {FORMAT}; "
                "a newer actshift wrote it: pip install -U actshift."
            )
        super().__post_init__()  # sets LoRA's peft_type
        self.peft_type = extend_peft_type()
        self.all_interventions: tuple[Intervention, ...] = ()
        self._set_interventions()
        self.stored: Checkpoint | None = None  # the tensors beside the file that the config was read from

    def _set_interventions(self) -> None:
        shorthand = {"adapter": self.adapter, "site": self.site, "layers": self.layers, "positions": self.positions}
        shorthand |= {"rank": self.rank, "init": self.init}
        given: dict[str, Any] = {name: value for name, value in shorthand.items() if value is not None}
        if self.interventions is None:
            adapter = _with_shorthand(given.pop("adapter", None), given.pop("rank", None), given.pop("init", None))
            self.all_interventions = (Intervention(adapter, **given),)
        elif given:
            raise ActshiftError(
                f"interventions say where and how to steer, and so does {', '.join(given)}; give one of the two."
            )
        else:
            self.all_interventions = interventions_from(self.interventions)
        one = self.all_interventions[0] if len(self.all_interventions) == 1 else None
        self.interventions = None if one else self.all_interventions
        for name in ("adapter", "site", "layers", "positions"):
            setattr(self, name, getattr(one, name, None))
        self.layers = None if self.layers is None else list(self.layers)
        self.rank, self.init = getattr(self.adapter, "rank", None), getattr(self.adapter, "init", None)

    def to_dict(self) -> dict[str, Any]:
        """Return what adapter_config.json holds: PEFT's own fields and ours, none of LoRA's."""
        return {**{name: getattr(self, name) for name in (*PEFT_FIELDS, *WRITTEN_FIELDS)}, **self.steering_dict()}

    def steering_dict(self) -> dict[str, Any]:
        """Return the interventions ready for JSON, the only one by the names of its own fields."""
        stored = [one.to_dict() for one in self.all_interventions]
        return stored[0] if len(stored) == 1 else {"interventions": stored}


def _default(item: Any) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def _with_shorthand(adapter: Any, rank: int | None, init: str | None) -> Any:
    given: Any = {name: value for name, value in (("rank", rank), ("init", init)) if value is not None}
    if adapter is None:
        return LowRank(**given)
    for name, value in given.items():
        if value != (adapter.get(name) if isinstance(adapter, dict) else getattr(adapter, name, None)):
            raise ActshiftError(
                f"{name}={value!r} contradicts adapter={adapter!r}; {name} is shorthand for LowRank({name}=…), "
                "so give it in one place."
            )
    return adapter


assert PEFT_TYPE.lower() == "actshift"  # transformers recognises our tensors by this word in their names
