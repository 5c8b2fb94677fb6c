"""Custom tasks, described by a .yaml or .json file."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from actshift.data.rows import Row
from actshift.errors import ActshiftError, check_choice, did_you_mean, is_number
from actshift.mappings import read_mapping
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import SHARES, SPLITS, Files, Hub, Source, SplitSlice, split_by_hash
from actshift.tasks.task import Example, Task

KEYS: dict[str, Any] = {
    "name": str, "title": str, "data": (str, dict), "hub": str, "config": str, "revision": str, "splits": dict,
    "prompt": str, "completion": str, "answer": str, "choices": (str, list), "scorer": str, "settings": dict,
    "max_new_tokens": int,
}  # fmt: skip
"""The keys of a task file, with the types of their values."""
SETTINGS = (
    "method objective chat adapter site layers positions first_tokens last_tokens rank activation bias init l0 l1 loss "
    "lofit_heads lofit_share lofit_steps lora_r lora_alpha lora_dropout lora_targets lora_learning_rate orthogonality "
    "orthogonality_every orthogonality_penalty scorer beta generations max_new_tokens temperature learning_rate epochs "
    "max_steps batch_size gradient_accumulation warmup weight_decay schedule max_length group_by_length seed "
    "save_steps eval_share precision gradient_checkpointing"
).split()
"""The settings that a task file may contain. The others run code, choose the model, or choose files."""
_HUB_ID = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")
WHOLE = "all"  # the only split of a single file


def read_task(path: str | Path) -> Task:
    """Return the task that a .yaml or .json file describes. docs/tasks.md explains the keys, with an example.

    Raises:
        ActshiftError: the file cannot be read, a key is unknown or missing, a value has the wrong type, the scorer is
            unknown, or the prompt ends in white space, after which a model's own first token does not start.
    """
    path, values = Path(path), read_mapping(path, "task file")
    _check(path, values)
    answer, choices = values.get("answer"), values.get("choices", [])
    columns: set[str] = set()  # that a row has had

    def example(row: Row) -> Example:
        columns.update(row)
        completion = _fill(values["completion"], row, columns)
        gold = completion.strip() if answer is None else _text(row, answer)
        texts = row[choices] if isinstance(choices, str) else choices
        if not isinstance(texts, list | tuple) or not all(map(_is_choice, texts)):
            raise ActshiftError(f"has no list of texts in the column {choices}, which names the choices")
        return Example(_fill(values["prompt"], row, columns), completion, gold, tuple(map(str, texts)))

    return Task(
        name=values.get("name", path.stem),
        title=values.get("title", f"The task of {path.name}"),
        source=_source(path, values),
        example=example,
        scorer=get_scorer(values.get("scorer", "exact")),
        **{key: values[key] for key in ("settings", "max_new_tokens") if key in values},
    )


def _is_choice(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


def _fill(template: str, row: Row, columns: Collection[str]) -> str:
    """Replace `{column}` by that column of the row. Other braces are plain text, unless they resemble a column."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in columns or re.fullmatch(r"\w+", name):
            return _text(row, name)
        if re.split("[!:.[]", name)[0] in columns:
            raise ActshiftError(f"cannot fill {match[0]}: write a column without a format, as in {{column}}")
        if near := did_you_mean(name, columns):
            raise ActshiftError(f"has no column {name!r} for {match[0]}{near}")
        return match[0]

    return re.sub(r"\{([^{}\n]+)\}", value, template)


def _text(row: Row, column: str) -> str:
    if (value := row[column]) is None:
        raise KeyError(column)
    if isinstance(value, dict | list | tuple | bytes):
        raise ActshiftError(f"has a value in the column {column} that is neither text nor a number")
    return str(value)


def _check(path: Path, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        check_choice(f"key of the task file {path}:", key, list(KEYS))
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise ActshiftError(f"In the task file {path}, {key} cannot be {value!r}; docs/tasks.md has an example.")
    for text in values.get("choices", ()):
        if not _is_choice(text):
            fix = 'write texts in quotes, as in ["yes", "no"], which are true and false in YAML without quotes'
            raise ActshiftError(f"In the task file {path}, choices cannot contain {text!r}; {fix}.")
    if missing := [key for key in ("prompt", "completion") if key not in values]:
        raise ActshiftError(f"The task file {path} has no {missing[0]}: text in which {{column}} stands for a column.")
    if values["prompt"] != values["prompt"].rstrip():
        raise ActshiftError(
            f"The prompt in the task file {path} ends in white space, but a model's first token starts with it; "
            "move the white space to the start of the completion."
        )
    if ("data" in values) == ("hub" in values):
        raise ActshiftError(f"The task file {path} must name the source of its rows: data (a file) or hub (an id).")
    if (hub := values.get("hub")) is not None and (not _HUB_ID.fullmatch(hub) or ".." in hub):
        raise ActshiftError(f"In the task file {path}, hub must be the id of a dataset such as user/name, got {hub!r}.")
    if values.get("max_new_tokens", 1) < 1:
        raise ActshiftError(f"In the task file {path}, max_new_tokens must be at least 1.")
    for name in values.get("settings", ()):
        if name not in SETTINGS:
            problem = f"The task file {path} cannot set {name!r}{did_you_mean(name, SETTINGS)}"
            raise ActshiftError(f"{problem}. Use a flag of the command; a task file can set: {', '.join(SETTINGS)}.")
    splits = [*values.get("splits", ()), *(values["data"] if isinstance(values.get("data"), dict) else ())]
    for split in splits:
        check_choice(f"split in the task file {path}:", split, SPLITS)


def _source(path: Path, values: Mapping[str, Any]) -> Source:
    if "hub" in values:
        slices = _slices(path, values.get("splits") or {split: split for split in SPLITS}, "train")
        return Hub(values["hub"], values.get("revision", "main"), values.get("config"), slices=slices)
    data = values["data"]
    if isinstance(data, str):
        slices = _slices(path, values.get("splits") or SHARES, WHOLE)
        if named := [part.split for part in slices.values() if part.split != WHOLE]:
            problem = f"is one file without a split {named[0]!r}; use shares such as 0.1"
            raise ActshiftError(f"The data of the task file {path} {problem}.")
        return Files({WHOLE: path.parent / data}, slices=slices)
    if not data:
        raise ActshiftError(f"In the task file {path}, data names no file.")
    if "splits" in values:
        raise ActshiftError(f"In the task file {path}, data already names a file for each split; leave out splits.")
    paths = {split: path.parent / str(name) for split, name in data.items()}
    return Files(paths, slices={split: SplitSlice(split) for split in paths})


def _slices(path: Path, splits: Mapping[str, Any], whole: str) -> dict[str, SplitSlice]:
    """Return the slices of splits that are names, as "validation", or shares of the split `whole`, as 0.1."""
    named = {split: SplitSlice(value) for split, value in splits.items() if isinstance(value, str)}
    shares = {split: value for split, value in splits.items() if split not in named}
    are_valid = all(is_number(share) and share > 0 for share in shares.values())
    if not are_valid or sum(shares.values()) > 1 + 1e-6:  # a sum of decimals is not exact
        raise ActshiftError(
            f"In the task file {path}, a split must be a name or a share above 0, and all shares at most 1 together, "
            f"got {dict(splits)}."
        )
    return {**(split_by_hash(whole, **shares) if shares else {}), **named}
