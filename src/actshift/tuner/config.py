"""What a user asks for and what adapter_config.json stores: the adapter, the site, the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from peft import LoraConfig, PeftConfig

from actshift.adapters import Adapter, LowRank, adapter_from_dict
from actshift.errors import ActshiftError, did_you_mean
from actshift.sites import check_site
from actshift.tuner.checkpoint import Checkpoint
from actshift.tuner.register import PEFT_TYPE, extend_peft_type

FORMAT = 1
PEFT_FIELDS = (*(item.name for item in fields(PeftConfig)), "modules_to_save")


@dataclass
class SteeringConfig(LoraConfig):
    """A PEFT config that steers activations: h ← h + s·Δ(h) at one site of the chosen blocks.

    Without arguments it is the paper's method: nonlinear rank 8 after every block, at every position.

    Args:
        rank, init: shorthand for `adapter=LowRank(rank=…, init=…)`.
        adapter: what Δ is, `LowRank(...)` or `Vector()`.
        site: "post_block" (after both skips, the default), "post_mlp" or "post_attention" (what that branch adds
            to its skip).
        layers: the blocks to steer, as a list or range of indices, negative ones from the end; None is all.
        blocks: the qualified name of the list of blocks, for a model where it cannot be told.
        format, d_model, num_blocks: written on saving; a model of another width or depth is refused on loading.
        task_type, modules_to_save, …: as in every PEFT config. The fields of LoRA are not taken.

    Raises ActshiftError for an unknown field, site or adapter, a bad rank, and a newer format than this one.
    Source: arXiv 2603.00425; the sites are its §"post-block", "post-MLP" and "pre-MLP".

    >>> SteeringConfig(rank=4, layers=range(-2, 0)).to_dict()["layers"]
    [-2, -1]
    """

    rank: int | None = None
    init: str | None = None
    adapter: Adapter | dict[str, Any] | None = None
    site: str = "post_block"
    layers: Sequence[int] | None = None
    blocks: str | None = None
    format: int = FORMAT
    d_model: int | None = None
    num_blocks: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> SteeringConfig:
        """Refuse unknown fields here: PEFT would turn the TypeError of `__init__` into a warning and drop them."""
        by_name = {item.name: item for item in fields(cls)}
        own = [name for name in by_name if name in PEFT_FIELDS or name not in LoraConfig.__dataclass_fields__]
        for name, value in kwargs.items():
            if name not in own and not (name in by_name and value == _default(by_name[name])):
                raise ActshiftError(
                    f"unknown field {name!r} of {cls.__name__}{did_you_mean(name, own)}; it takes "
                    f"{', '.join(own)}. If a newer actshift wrote the file: pip install -U actshift."
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check every field, and turn the shorthand and stored forms into the typed ones."""
        if self.format != FORMAT:
            raise ActshiftError(
                f"this adapter has format {self.format!r} and this actshift reads format {FORMAT}; "
                "a newer actshift wrote it: pip install -U actshift."
            )
        super().__post_init__()  # sets LoRA's peft_type
        self.peft_type = extend_peft_type()
        self.adapter = _typed_adapter(self.adapter, self.rank, self.init)
        self.rank = getattr(self.adapter, "rank", None)
        self.init = getattr(self.adapter, "init", None)
        check_site(self.site)
        self.layers = _index_list(self.layers)
        self.stored: Checkpoint | None = None  # the tensors beside the file that the config was read from

    @property
    def intervention(self) -> Adapter:
        """The adapter in its typed form."""
        assert isinstance(self.adapter, Adapter)  # since __post_init__
        return self.adapter

    def to_dict(self) -> dict[str, Any]:
        """Return what adapter_config.json holds: PEFT's own fields and ours, none of LoRA's."""
        names = [*PEFT_FIELDS, "site", "layers", "blocks", "format", "d_model", "num_blocks"]
        return {**{name: getattr(self, name) for name in names}, "adapter": self.intervention.to_dict()}


def _default(item: Any) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def _typed_adapter(adapter: Adapter | dict[str, Any] | None, rank: int | None, init: str | None) -> Adapter:
    if adapter is None:
        given: Any = {name: value for name, value in (("rank", rank), ("init", init)) if value is not None}
        return LowRank(**given)
    if isinstance(adapter, dict):
        adapter = adapter_from_dict(adapter)
    if not isinstance(adapter, Adapter):
        raise ActshiftError(
            f"adapter must be an adapter such as LowRank(rank=8) or Vector(), got {adapter!r} "
            f"of type {type(adapter).__name__}."
        )
    for name, value in (("rank", rank), ("init", init)):
        if value is not None and value != getattr(adapter, name, None):
            raise ActshiftError(
                f"{name}={value!r} contradicts adapter={adapter!r}; {name} is shorthand for LowRank({name}=…), "
                "so give it in one place."
            )
    return adapter


def _index_list(layers: Sequence[int] | None) -> list[int] | None:
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(type(i) is int for i in layers):
        raise ActshiftError(
            f"layers must be a list or range of block indices such as [0, 1] or range(-4, 0), or None for all; "
            f"got {layers!r}."
        )
    return list(layers)


assert PEFT_TYPE.lower() == "actshift"  # transformers recognises our tensors by this word in their names
