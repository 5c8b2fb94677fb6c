"""Load a model and its tokenizer: the one place where a base model comes into actshift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from actshift.errors import ActshiftError, first_line
from actshift.model_head import CAUSAL, Head

TOKENIZER_FILES = "tokenizer.json tokenizer_config.json tokenizer.model spiece.model vocab.json vocab.txt".split()


def load_model(
    source: str | Path,
    dtype: Literal["auto", "float32"] = "auto",
    trust_remote_code: bool = False,
    device: str | None = None,
    head: Head = CAUSAL,
    config: PretrainedConfig | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a folder or a Hugging Face id, ready for inference.

    `dtype="auto"` is bfloat16 on a GPU that computes in it and float32 elsewhere, whatever the file stores.
    `device=None` is the first GPU, else the CPU. Only safetensors are read; `trust_remote_code` runs the code
    that comes with the model, so leave it off unless you know its author. `head` is what it predicts with, by default
    the next token; a classifier's head begins at random where the files have none with as many classes. If `config` is
    None, it is read from the source.

    Raises:
        ActshiftError: no such model, the hub is not reachable, a file is missing, damaged or of another
            shape, or there is no such model with such a head.

    Example:
        >>> model, tokenizer = load_model("HuggingFaceTB/SmolLM2-135M")  # doctest: +SKIP
    """
    source = str(source)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = config or load_config(source, trust_remote_code)
    tokenizer = load_tokenizer(source, trust_remote_code)
    with explained(source), _no_weight_bar(), nullcontext() if head == CAUSAL else _no_report():
        model, info = head.auto_class.from_pretrained(
            source,
            config=head.settle(config),
            dtype=_resolve_dtype(dtype, device),
            device_map=None if device == "cpu" else device,  # straight to the GPU, never a second copy in RAM
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=head.classifies,
            output_loading_info=True,
        )
    if missing := _missing(model, info, head):  # transformers would go on with random numbers in their place
        raise ActshiftError(
            f"The weights of {source} lack {missing[0]} ({len(missing)} missing in all), which "
            f"{type(model).__name__} needs; give a complete checkpoint of such a model."
        )
    if head.classifies:  # a causal model reads a text's class at the last token that is no padding
        model.config.pad_token_id = pad_id(tokenizer)
    return model.eval(), tokenizer


def _missing(model: PreTrainedModel, info: Mapping[str, Any], head: Head) -> list[str]:
    """The weights that the files lack, or have in another shape, but for a classifier's head and an unused pooler."""
    lacking = [*info["missing_keys"], *(one[0] for one in info["mismatched_keys"])]
    if head.task_type == "FEATURE_EXTRACTION":
        return sorted(name for name in lacking if not name.startswith("pooler."))
    inside = f"{model.base_model_prefix}."
    return sorted(name for name in lacking if not head.classifies or name.startswith(inside))


def load_config(source: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read the configuration of a model in a folder or on the hub, without its weights.

    Raises:
        ActshiftError: no such model, the hub is not reachable, or the configuration cannot be understood.
    """
    _check_folder(source)
    with explained(source):
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a model in a folder or on the hub, without the model's weights.

    Raises:
        ActshiftError: no such model or no tokenizer beside it, or the hub is not reachable.
    """
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ActshiftError(f"The folder {source} has no tokenizer; tokenizer.save_pretrained() puts one there.")
    with explained(source):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that a batch is padded with: the tokenizer's own, else the one that ends a text."""
    return cast(int, tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def context_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens that a model of such a config can attend to: the smaller of what it and its tokenizer say."""
    limits = (getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
    return min(int(limit) for limit in limits if limit)  # a tokenizer says 1e30 where it knows of none


def _resolve_dtype(dtype: str, device: str) -> torch.dtype:
    if dtype not in ("auto", "float32"):
        raise ActshiftError(f"There is no dtype {dtype!r} here: it is 'auto' or 'float32'.")
    on_gpu = dtype == "auto" and device.startswith("cuda")
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported(False) else torch.float32  # not emulated


def _check_folder(source: str) -> None:
    path = Path(source).expanduser()
    looks_local = path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2
    if path.is_file():
        raise ActshiftError(f"{source} is a file; give the folder that holds the model's config.json.")
    if not path.exists():
        if looks_local:
            raise ActshiftError(f"There is no folder {source}; give a model's folder or its Hugging Face id.")
        return  # an id: the hub will tell
    if (path / "config.json").is_file():
        return
    if (path / "adapter_config.json").is_file():
        raise ActshiftError(f"{source} is an adapter, not a model; give its base as the model, and this beside it.")
    raise ActshiftError(f"The folder {source} has no config.json, so it holds no Hugging Face model.")


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what transformers and safetensors raise, often a paragraph with links, into one sentence."""
    try:
        yield
    except ActshiftError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ActshiftError(_explain(source, error)) from error
    except Exception as error:  # SafetensorError derives from Exception alone
        if type(error).__name__ != "SafetensorError":
            raise
        raise ActshiftError(f"The weights of {source} are damaged ({error}); fetch them again.") from error


def _explain(source: str, error: Exception) -> str:
    text = str(error)
    for sign, sentence in _SIGNS.items():
        if sign in text:
            return sentence.format(source)
    return f"{source} cannot be loaded: {first_line(error)}"


_SIGNS = {
    "couldn't connect": "{} is neither a folder here nor a cached model, and the hub is unreachable.",
    "not a valid model": "{} is neither a folder here nor a model on the Hugging Face hub; check its name.",
    "Repo id must": "{} is neither a folder here nor a possible Hugging Face id; check the spelling.",
    "no file named": "{} has no model.safetensors, and pickled weights are not read; save it as safetensors.",
    "trust_remote_code": "{} comes with code of its own, which runs only if you set trust_remote_code.",
    "not recognize this arch": "{} is of a kind that this version of transformers does not know; update it.",
    "Unrecognized configuration class": "{} is not a causal language model; give one that generates text.",
    "ignore_mismatched_sizes": "The weights of {} have other shapes than its config.json says.",
}
"""What transformers says, and what it means."""


@contextmanager
def _no_weight_bar() -> Iterator[None]:
    """Hide the bar that flashes by while weights are copied; a download keeps its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    if shown:
        transformers_logging.disable_progress_bar()  # switches the hub's bars off as well
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _no_report() -> Iterator[None]:
    """Hide the report that a head begins at random, and that another's weights are not used: both are meant."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
