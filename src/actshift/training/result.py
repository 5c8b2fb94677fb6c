"""The results of training, and their form in metrics.json."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.model_head import CAUSAL, Head
from actshift.training.record import as_json
from actshift.training.run_folder import METRICS, RunFolder, read_json
from actshift.training.settings import TrainSettings, require_setting

if TYPE_CHECKING:
    from datasets import Dataset

SelectedHeads = dict[int, tuple[int, ...]]  # of each block that has any


@dataclass(frozen=True)
class FitResult:
    """The losses, sizes and duration of one training.

    Attributes:
        train_loss: the mean over the last logged steps, in nats per token.
        eval_loss: the best evaluation loss, in nats per token; None without evaluation.
        best_step: the step whose state was kept.
        left_out: the number of rows that exceeded max_length.
        trainable: the number of trained parameters, out of all `parameters`.
        figures: the metrics of the objective, such as `reward` (last steps), `reward_start` (first steps) and
            `eval_reward` (evaluation rows, at the step that was kept).
    """

    steps: int
    train_loss: float
    eval_loss: float | None
    best_step: int
    rows: int
    left_out: int
    trainable: int
    parameters: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Trained parameters over all parameters, from 0 to 1."""
        return self.trainable / self.parameters

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitResult:
        """Return the result from a dict with these fields; others are ignored, and old names of metrics are replaced.

        >>> old = {"reward at the start": 0.1, "reward, held-out rows": 0.4}
        >>> FitResult.from_dict({**asdict(FitResult(1, 2.0, None, 1, 8, 0, 4, 9, 1.0)), "figures": old}).figures
        {'reward_start': 0.1, 'eval_reward': 0.4}
        """
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known["figures"] = {_current_name(name): value for name, value in known.get("figures", {}).items()}
        return cls(**known)


def _current_name(name: str) -> str:
    name = name.replace("preferred right", "preference_accuracy").replace(" at the start", "_start")
    return re.sub("(.*), held-out rows", r"eval_\1", name)


@dataclass(frozen=True)
class HeadSelection:
    """The result of LoFiT's first phase: the selected attention heads by block, and the result of its training."""

    heads: SelectedHeads
    fit: FitResult

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HeadSelection:
        """Return the selection from its fields as JSON data."""
        heads = {int(layer): tuple(selected) for layer, selected in values["heads"].items()}
        return cls(heads, FitResult.from_dict(values["fit"]))

    def __str__(self) -> str:
        blocks = "; ".join(f"block {layer}: {', '.join(map(str, heads))}" for layer, heads in self.heads.items())
        return f"{sum(map(len, self.heads.values()))} heads ({blocks})"


@dataclass(frozen=True)
class ChatRecord:
    """How a run turned its rows into texts: rendered by the chat template, and with these arguments in every row."""

    rendered: bool
    template_kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Dataset) -> ChatRecord:
        """Return the record of training rows."""
        from actshift.data import is_chat

        if not is_chat(rows):
            return cls(rendered=False)
        kwargs = rows["chat_template_kwargs"] if "chat_template_kwargs" in rows.column_names else [None]
        return cls(True, (kwargs[0] or {}) if all(each == kwargs[0] for each in kwargs) else {})


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its settings, the result of training (for LoFiT, of the second phase), and the model head.

    `chat` is None for runs of older versions, which did not record it.
    """

    settings: TrainSettings
    fit: FitResult
    selection: HeadSelection | None = None
    head: Head = CAUSAL
    chat: ChatRecord | None = None

    @property
    def folder(self) -> Path:
        """The folder with the adapter or the model."""
        return Path(require_setting(self.settings, "out"))

    @property
    def folder_bytes(self) -> int:
        """The size of all files in the folder."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json: the fields of `fit`, then share, head, settings and selection."""
        parts = {"head": asdict(self.head), "settings": asdict(self.settings)}
        selection = {"selection": asdict(self.selection)} if self.selection else {}
        chat = {"chat": asdict(self.chat)} if self.chat else {}
        return asdict(self.fit) | {"share": self.fit.share} | parts | chat | selection

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainResult:
        """Return the result that `to_dict` described."""
        selection = HeadSelection.from_dict(values["selection"]) if "selection" in values else None
        head = Head(values["head"]["task_type"], tuple(values["head"]["labels"])) if "head" in values else CAUSAL
        chat = ChatRecord(**values["chat"]) if "chat" in values else None
        return cls(TrainSettings(**values["settings"]), FitResult.from_dict(values), selection, head, chat)


def read_result(folder: Path) -> TrainResult:
    """Return the result in the metrics.json of a finished run, or raise ActshiftError if actshift did not write it."""
    values = read_json(folder / METRICS)
    try:
        return TrainResult.from_dict(values)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ActshiftError(f"{folder / METRICS} is damaged, or is not of an actshift run.") from error


def recorded_chat(source: str) -> ChatRecord | None:
    """Return the record in the metrics.json of an adapter or of a folder with a model, or None if there is none."""
    from actshift.tuner.checkpoint import adapter_file

    try:
        path = Path(source, METRICS) if Path(source).is_dir() else Path(adapter_file(source, METRICS))
        values = read_json(path)["chat"]
        kwargs = values["template_kwargs"]
        return ChatRecord(bool(values["rendered"]), kwargs if isinstance(kwargs, dict) else {})
    except (ActshiftError, OSError, ValueError, TypeError, KeyError):
        return None


def stored_settings(out: str | Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings of the finished or unfinished run in the folder `out`.

    Settings that run code (custom rewards, and the code of a model) count only in the folder where the run started.
    Elsewhere they must be `given` again, since the folder may come from a stranger.

    Raises:
        ActshiftError: the folder contains no run, or a setting that runs code must be given.
    """
    run = RunFolder(Path(out).expanduser())
    if run.finished:
        return {**as_json(read_result(run.path).settings), "trust_remote_code": False}
    settings = run.settings()
    runs_code = {
        "trust_remote_code": settings.get("trust_remote_code"),
        "reward": any(":" in str(name) for name in settings.get("reward") or ()),
    }
    for name, runs in runs_code.items():
        if runs and name not in given and not run.started_here:
            flag = f"--{name.replace('_', '-')}"
            problem = f"The run in {out} was copied here, and its setting {name} runs code"
            raise ActshiftError(f"{problem}; repeat {flag} if you trust its author.")
    return settings
