"""What is compared, on what, and how; the command line is read off this class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.training.setting_fields import check_fields, setting
from actshift.training.settings import MACHINE, WHAT, TrainSettings

if TYPE_CHECKING:
    from actshift.tasks import Scorer

SCORING = "Scoring"
COMMON = (
    "epochs", "max_steps", "batch_size", "gradient_accumulation", "max_length",
    "precision", "gradient_checkpointing", "trust_remote_code", "group_by_length", "objective", "chat",
)  # fmt: skip
"""The settings of training that have a flag here; a methods file may hold any other."""


def _common(name: str) -> Any:
    """A setting of training; None leaves it to the methods file, and then to TrainSettings."""
    item = TrainSettings.__dataclass_fields__[name]
    default = "" if item.default in (None, False) else f" (default: {item.default})"
    return field(default=None, metadata={**item.metadata, "help": item.metadata["help"] + default})


@dataclass(frozen=True)
class CompareSettings:
    """A comparison: a model, rows, methods and seeds; the protocol is that of arXiv 2603.00425.

    Raises ActshiftError for a value of the wrong type or out of its range.

    >>> CompareSettings(model="gpt2", data="rows.jsonl", out="table", epochs=3).common
    {'epochs': 3.0}
    """

    model: str | None = setting(WHAT, None, "Base model: a folder or a Hugging Face id.")
    data: str | None = setting(WHAT, None, "Rows to train on: a .jsonl, .json, .csv or .parquet file, or a dataset id.")
    task: str | None = field(default=None, metadata=TrainSettings.__dataclass_fields__["task"].metadata)
    data_dir: str | None = field(default=None, metadata=TrainSettings.__dataclass_fields__["data_dir"].metadata)
    eval_data: str | None = setting(
        WHAT, None, "Rows to choose the learning rate by (a dataset's validation split); cut from --data if left out."
    )
    test_data: str | None = setting(
        WHAT, None, "Rows for the table (a dataset's test split); cut from --data if left out."
    )
    methods: tuple[str, ...] = setting(
        WHAT, ("paper",), "Names with commas between, paper, all, or a .yaml file that defines one's own (repeatable)."
    )
    seeds: int = setting(WHAT, 3, "Seeds of each method; the first one chooses its learning rate.", least=1)
    out: str | None = setting(WHAT, None, "Folder for the table; a comparison that stopped there is gone on with.")
    keep_weights: bool = setting(WHAT, False, "Keep fully fine-tuned models too; adapters of chosen cells are kept.")

    objective: str | None = _common("objective")
    chat: bool | None = _common("chat")
    epochs: float | None = _common("epochs")
    max_steps: int | None = _common("max_steps")
    batch_size: int | None = _common("batch_size")
    gradient_accumulation: int | None = _common("gradient_accumulation")
    max_length: int | None = _common("max_length")
    group_by_length: bool | None = _common("group_by_length")
    scorer: str | None = setting(SCORING, None, "Who judges completions; the task's if left out, else exact match.")
    max_new_tokens: int | None = setting(
        SCORING, None, "Tokens to write at most; the task's if left out, or 64.", least=1
    )
    eval_batch_size: int = setting(SCORING, 16, "Rows to complete at a time.", least=1)
    precision: str | None = _common("precision")
    gradient_checkpointing: bool | None = _common("gradient_checkpointing")
    trust_remote_code: bool | None = _common("trust_remote_code")
    jobs: int = setting(MACHINE, 1, "Cells side by side, as processes; several have one thread each.", least=1)

    def __post_init__(self) -> None:
        """Check every value and bring it to its declared type."""
        check_fields(self)
        TrainSettings(**self.common)

    @property
    def common(self) -> dict[str, Any]:
        """The settings of training that were given, which hold for all methods."""
        return {name: value for name in COMMON if (value := getattr(self, name)) is not None}

    @property
    def judge(self) -> Scorer | None:
        """Who judges completions; None where these must match exactly."""
        from actshift.tasks import get_scorer, get_task

        return get_scorer(self.scorer) if self.scorer else get_task(self.task).scorer if self.task else None

    @property
    def new_tokens(self) -> int:
        """The tokens to write at most."""
        from actshift.tasks import completion_length

        return completion_length(self.max_new_tokens, self.task)

    def named(self, name: str) -> str:
        """Return `model`, `data` or `out`; raise ActshiftError where it was not given."""
        if value := getattr(self, name):
            return value
        raise ActshiftError(f"The setting {name} is missing; give --{name}.")
