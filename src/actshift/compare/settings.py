"""Settings of a comparison; the command line derives its flags from this class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.training.setting_fields import check_fields, setting
from actshift.training.settings import MACHINE, WHAT, TrainSettings, command_line

if TYPE_CHECKING:
    from actshift.tasks import Scorer

SCORING = "Scoring"
COMMON = (
    "epochs", "max_steps", "batch_size", "gradient_accumulation", "max_length",
    "precision", "gradient_checkpointing", "trust_remote_code", "group_by_length", "objective", "chat",
)  # fmt: skip
"""Training settings that have a flag here; a methods file may set any other."""


def _metadata(name: str) -> Any:
    return TrainSettings.__dataclass_fields__[name].metadata


def _common(name: str) -> Any:
    """Return a field for a training setting; None leaves the value to the methods file or to TrainSettings."""
    default = TrainSettings.__dataclass_fields__[name].default
    suffix = "" if default in (None, False) else f" (default: {default})"
    return field(default=None, metadata={**_metadata(name), "help": _metadata(name)["help"] + suffix})


@dataclass(frozen=True)
class CompareSettings:
    """A comparison of methods on one model and one set of rows, by the protocol of arXiv 2603.00425.

    Raises:
        ActshiftError: if a value has the wrong type or is out of range.

    >>> CompareSettings(model="gpt2", data="rows.jsonl", out="table", epochs=3).common
    {'epochs': 3.0}
    """

    model: str | None = setting(WHAT, None, "Base model: a folder or a Hugging Face id.")
    data: str | None = setting(WHAT, None, "Training rows: a .jsonl, .json, .csv or .parquet file, or a dataset id.")
    task: str | None = field(default=None, metadata=_metadata("task"))
    data_dir: str | None = field(default=None, metadata=_metadata("data_dir"))
    eval_data: str | None = setting(
        WHAT, None, "Rows that choose the learning rate (a dataset's validation split). Default: cut from --data."
    )
    test_data: str | None = setting(
        WHAT, None, "Rows that the table reports (a dataset's test split). Default: cut from --data."
    )
    methods: tuple[str, ...] = setting(
        WHAT, ("paper",), "Comma-separated method names, paper, all, or a .yaml file with methods (repeatable)."
    )
    seeds: int = setting(WHAT, 3, "Seeds of each method. The first one chooses the learning rate.", least=1)
    out: str | None = setting(WHAT, None, "Folder for the table. An interrupted comparison in it is resumed.")
    keep_weights: bool = setting(
        WHAT, False, "Also keep fully fine-tuned models. Adapters of the chosen cells are always kept."
    )

    objective: str | None = _common("objective")
    chat: bool | None = _common("chat")
    epochs: float | None = _common("epochs")
    max_steps: int | None = _common("max_steps")
    batch_size: int | None = _common("batch_size")
    gradient_accumulation: int | None = _common("gradient_accumulation")
    max_length: int | None = _common("max_length")
    group_by_length: bool | None = _common("group_by_length")
    scorer: str | None = setting(
        SCORING, None, "Scorer of the completions. Default: the task's scorer, or exact match without a task."
    )
    max_new_tokens: int | None = setting(
        SCORING, None, "Maximum number of generated tokens. Default: the task's value, or 64 without a task.", least=1
    )
    eval_batch_size: int = setting(SCORING, 16, "Rows to complete at a time.", least=1)
    precision: str | None = _common("precision")
    gradient_checkpointing: bool | None = _common("gradient_checkpointing")
    trust_remote_code: bool | None = _common("trust_remote_code")
    jobs: int = setting(
        MACHINE, 1, "Cells to run at the same time, in separate processes. With more than one, each uses one thread.",
        least=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check every value and convert it to its declared type."""
        check_fields(self)
        TrainSettings(**self.common)

    @property
    def common(self) -> dict[str, Any]:
        """The given training settings, which all methods share."""
        return {name: value for name in COMMON if (value := getattr(self, name)) is not None}

    @property
    def judge(self) -> Scorer | None:
        """Scorer of the completions, or None for exact match."""
        from actshift.tasks import get_scorer, get_task

        return get_scorer(self.scorer) if self.scorer else get_task(self.task).scorer if self.task else None

    @property
    def new_tokens(self) -> int:
        """Maximum number of generated tokens."""
        from actshift.tasks import completion_length

        return completion_length(self.max_new_tokens, self.task)

    @property
    def command(self) -> str:
        """Command line that runs this comparison.

        >>> CompareSettings(model="gpt2", data="rows.jsonl", out="table", seeds=2).command
        'actshift compare --model gpt2 --data rows.jsonl --seeds 2 --out table'
        """
        return command_line("actshift compare", self)

    def required(self, name: str) -> str:
        """Return the setting `name` (model, data or out); raise ActshiftError if it is missing."""
        if value := getattr(self, name):
            return value
        raise ActshiftError(f"The setting {name} is missing; give --{name}.")
