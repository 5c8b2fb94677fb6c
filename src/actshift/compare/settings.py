"""Settings of a comparison; the command line derives its flags from this class."""

from dataclasses import dataclass, field, fields
from typing import Any

from actshift.errors import ActshiftError
from actshift.training.setting_fields import convert_fields, setting
from actshift.training.settings import MACHINE, SOURCES, WHAT, TrainSettings, command_line

SCORING = "Scoring"


def _metadata(name: str) -> Any:
    return TrainSettings.__dataclass_fields__[name].metadata


def _common(name: str) -> Any:
    """Return a field for a training setting of all methods; None leaves it to the methods file or its default."""
    default = TrainSettings.__dataclass_fields__[name].default
    suffix = "" if default in (None, False) else f" (default: {default})"
    return field(default=None, metadata={**_metadata(name), "help": _metadata(name)["help"] + suffix, "common": True})


@dataclass(frozen=True)
class CompareSettings:
    """A comparison of methods on one model and one set of rows, by the protocol of arXiv 2603.00425.

    Raises:
        ActshiftError: if a value has the wrong type or is out of range.

    >>> CompareSettings(model="gpt2", data="rows.jsonl", out="table", epochs=3).common
    {'epochs': 3.0}
    """

    model: str | None = setting(WHAT, None, "Base model: a folder, a GGUF file or a Hugging Face id.")
    revision: str | None = field(default=None, metadata=_metadata("revision"))
    data: str | tuple[str, ...] | None = setting(WHAT, None, f"Training rows: {SOURCES}")
    map: tuple[str, ...] | None = field(default=None, metadata=_metadata("map"))
    task: str | None = field(default=None, metadata=_metadata("task"))
    data_dir: str | None = field(default=None, metadata=_metadata("data_dir"))
    eval_data: str | None = setting(
        WHAT, None, "Rows that choose the learning rate (a dataset's validation split). Default: cut from --data."
    )
    test_data: str | None = setting(WHAT, None, "Rows to test on (a dataset's test split). Default: cut from --data.")
    methods: tuple[str, ...] = setting(
        WHAT, ("paper",), "Comma-separated method names, paper, all, or a .yaml file with methods (repeatable)."
    )
    limit: int | None = _common("limit")
    seeds: int = setting(WHAT, 3, "Seeds of each method. The first one chooses the learning rate.", least=1)
    out: str | None = setting(WHAT, None, "Folder for the table. An interrupted comparison in it is resumed.")
    keep_weights: bool = setting(WHAT, False, "Also keep fully fine-tuned models (chosen adapters always are).")

    objective: str | None = _common("objective")
    chat: bool | None = _common("chat")
    epochs: float | None = _common("epochs")
    max_steps: int | None = _common("max_steps")
    batch_size: int | None = _common("batch_size")
    gradient_accumulation: int | None = _common("gradient_accumulation")
    max_length: int | None = _common("max_length")
    group_by_length: bool | None = _common("group_by_length")
    scorer: str | None = setting(SCORING, None, "Scorer of the completions. Default: the task's, or exact match.")
    max_new_tokens: int | None = setting(
        SCORING, None, "Most new tokens. Default: the task's, or as the rows need.", least=1
    )
    eval_batch_size: int = setting(SCORING, 16, "Rows to complete at a time.", least=1)
    precision: str | None = _common("precision")
    gradient_checkpointing: bool | None = _common("gradient_checkpointing")
    trust_remote_code: bool | None = _common("trust_remote_code")
    jobs: int = setting(MACHINE, 1, "Number of processes that run cells; with several, each uses one thread.", least=1)

    def __post_init__(self) -> None:
        """Check every value and convert it to its declared type."""
        convert_fields(self)
        TrainSettings(**self.common)

    @property
    def common(self) -> dict[str, Any]:
        """The given training settings, which all methods share."""
        names = [item.name for item in fields(self) if "common" in item.metadata]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def scorer_name(self) -> str | None:
        """Name of the scorer of the completions, or None for exact match."""
        from actshift.tasks import get_scorer, get_task

        scorer = get_scorer(self.scorer) if self.scorer else get_task(self.task).scorer if self.task else None
        return scorer.name if scorer else None

    @property
    def new_tokens(self) -> int | None:
        """Maximum number of generated tokens, or None for what the rows need."""
        from actshift.tasks import get_task

        return self.max_new_tokens or (get_task(self.task).max_new_tokens if self.task else None)

    @property
    def command(self) -> str:
        """Command line that runs this comparison.

        >>> CompareSettings(model="gpt2", data="rows.jsonl", out="table", seeds=2).command
        'actshift compare --model gpt2 --data rows.jsonl --seeds 2 --out table'
        """
        return command_line("actshift compare", self)

    def required(self, name: str) -> Any:
        """Return the setting `name` (model, data or out); raise ActshiftError if it is missing."""
        if value := getattr(self, name):
            return value
        raise ActshiftError(f"The setting {name} is missing; give --{name}.")
