"""Tell an adapter from a model, and describe it."""

from __future__ import annotations

from pathlib import Path

from actshift.analysis.adapter import AdapterDescription, describe_adapter
from actshift.analysis.model import ModelDescription, describe_model
from actshift.errors import ActshiftError
from actshift.tuner.checkpoint import CONFIG_NAME, fetch


def describe(source: str) -> AdapterDescription | ModelDescription:
    """Describe the adapter or the model in folder or hub repository `source`, without loading a model.

    Raises:
        ActshiftError: it is neither, or one of its files is damaged.

    Example:
        >>> from actshift.demo import BASE_DIR
        >>> describe(str(BASE_DIR)).model_type
        'llama'
    """
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in (CONFIG_NAME, "config.json")):
        raise ActshiftError(f"The folder {source} is no adapter and no model: it has no {CONFIG_NAME} or config.json.")
    try:
        fetch(source, CONFIG_NAME)
    except ActshiftError:
        return describe_model(source)
    return describe_adapter(source)
