"""Load base models and their tokenizers."""

import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, cast

import torch
from huggingface_hub.utils import enable_progress_bars
from safetensors import SafetensorError
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from actshift.errors import ActshiftError, check_choice, first_line, warn_once
from actshift.gguf import SUFFIX, dequantised, find_gguf, gguf_arguments
from actshift.model_head import CAUSAL, Head

MAIN = "main"  # the hub's name of the default revision
TOKENIZER_FILES = "tokenizer.json tokenizer_config.json tokenizer.model spiece.model vocab.json vocab.txt".split()

_POSITIONS = ("max_position_embeddings", "max_seq_len", "max_encoder_position_embeddings")  # names in configs
_EXPLANATIONS = {
    "is not a valid git identifier": "{} has no such revision on the Hugging Face hub. Check the name of the revision.",
    "couldn't connect": "{} is neither a folder here nor a cached model, and the hub is unreachable.",
    "not a valid model": "{} is neither a folder here nor a model on the Hugging Face hub. Check its name.",
    "Repo id must": "{} is neither a folder here nor a possible Hugging Face id. Check the spelling.",
    "a file named config.json": "{} has no config.json. If it has GGUF files, download one, and give its path.",
    "no file named": "{} has no model.safetensors, and pickled weights are not read. Save it as safetensors.",
    "trust_remote_code": "{} contains its own code, which runs only if you set trust_remote_code.",
    "not recognize this arch": "{} has an architecture that this version of transformers does not know. Update it.",
    "Unrecognized configuration class": "{} is not a causal language model. Give one that generates text.",
    "ignore_mismatched_sizes": "The weights of {} have other shapes than its config.json specifies.",
}
"""Our error messages by a phrase in the message of transformers. `{}` is the model."""


def load_model(
    source: str | Path,
    dtype: Literal["auto", "float32"] = "auto",
    trust_remote_code: bool = False,
    device: str | None = None,
    head: Head = CAUSAL,
    config: PretrainedConfig | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a folder, a GGUF file or a Hugging Face id, in evaluation mode.

    Only reads safetensors and GGUF. The weights of a GGUF file are dequantised, with a warning.

    Args:
        dtype: "auto" is bfloat16 on a GPU that supports it, and float32 elsewhere.
        trust_remote_code: run the code that comes with the model. Leave it off unless you know the author.
        device: where to load the model. None means the first GPU, else the CPU.
        head: a classifier's head is initialised at random if the files have no head with as many classes.
        revision: branch, tag or commit of a model on the hub. None means `main`. It is stored as `model.hub_revision`,
            from where adapters take the revision of their base.

    Raises:
        ActshiftError: the model does not exist, or not with this head; a folder is given a revision; the hub is
            unreachable; or a file (config, tokenizer or weights) is missing, damaged or has other shapes.

    >>> from actshift.demo import BASE_DIR
    >>> model, tokenizer = load_model(BASE_DIR, device="cpu")
    >>> type(model).__name__, model.dtype
    ('LlamaForCausalLM', torch.float32)
    """
    source = str(source)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = config or load_config(source, trust_remote_code, revision)
    tokenizer = load_tokenizer(source, trust_remote_code, revision)
    with _quiet(hide_warnings=head != CAUSAL), _files(source, trust_remote_code, revision) as files:
        model, info = head.auto_class.from_pretrained(
            **files,
            **(dequantised() if "gguf_file" in files else {"use_safetensors": True}),
            config=head.set_labels(config),
            dtype=_resolve_dtype(dtype, device),
            device_map=None if device == "cpu" else device,  # straight to the GPU, without a second copy in RAM
            ignore_mismatched_sizes=head.classifies,
            output_loading_info=True,
        )
    if missing := _missing_weights(model, info, head):  # transformers would only warn, and initialise them at random
        problem = f"The weights of {source} lack {missing[0]} ({len(missing)} missing in all)"
        raise ActshiftError(f"{problem}, which {type(model).__name__} needs. Give a complete checkpoint.")
    _refuse_unknown_tokens(model, tokenizer)
    if head.classifies:  # a causal model classifies a text at its last token that is not padding
        model.config.pad_token_id = pad_id(tokenizer)
    model.hub_revision = revision
    if "gguf_file" in files:
        model.name_or_path = model.config.name_or_path = source  # adapters record it as their base
        size = f"{model.num_parameters() * model.dtype.itemsize / 1e9:.2g} GB in {str(model.dtype)[6:]}"
        warn_once(f"{source} is a GGUF file, and its weights are dequantised ({size}).")
    return model.eval(), tokenizer


def load_config(source: str, trust_remote_code: bool = False, revision: str | None = None) -> PretrainedConfig:
    """Load the config of a model from a folder, a GGUF file or the hub. Errors are as in `load_model`."""
    _check_source(source, revision)
    with _files(source, trust_remote_code, revision) as files:
        config = AutoConfig.from_pretrained(**files)
    if "gguf_file" in files and not config.architectures:
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, "")]
    return config


def load_tokenizer(
    source: str, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model from a folder, a GGUF file or the hub. Errors are as in `load_model`."""
    folder = Path(source)
    with _files(source, trust_remote_code, revision) as files:
        has_tokenizer = "gguf_file" in files or any((folder / name).is_file() for name in TOKENIZER_FILES)
        if folder.is_dir() and not has_tokenizer:
            fix = "Save one there with tokenizer.save_pretrained()"
            raise ActshiftError(f"The folder {source} has no tokenizer. {fix}.")
        tokenizer = AutoTokenizer.from_pretrained(**files)
    tokenizer.name_or_path = source
    return tokenizer


@contextmanager
def _files(source: str, trust_remote_code: bool, revision: str | None) -> Generator[dict[str, Any]]:
    """Yield the arguments with which `from_pretrained` finds the files of a model, and shorten its errors."""
    with short_errors(source), ExitStack() as stack:
        if (file := find_gguf(source)) is not None:
            yield stack.enter_context(gguf_arguments(file))
        else:
            yield {
                "pretrained_model_name_or_path": source,
                "trust_remote_code": trust_remote_code,
                "revision": revision or MAIN,
            }


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the padding token, or of the end-of-text token if the tokenizer has no padding token."""
    return cast(int, tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def context_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of tokens that a model can attend to: the smaller limit of its config and its tokenizer.

    In models like RoBERTa, the positions up to the padding id have a place in the table but no token.
    """
    text = config.get_text_config()
    table = next((size for name in _POSITIONS if isinstance(size := getattr(text, name, None), int) and size > 0), None)
    limits = (table and table - _unused_positions(text), tokenizer.model_max_length)
    return min(int(limit) for limit in limits if limit)  # a tokenizer without a limit has 1e30


def check_vocabulary(
    places: Iterable[tuple[str, Sequence[int]]], config: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise ActshiftError if the token ids of a place, such as "Row 3", exceed the rows of the model's embedding."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        return
    for place, ids in places:
        if (largest := max(ids, default=0)) >= size:
            raise _unknown_token(place, largest, size, tokenizer)


def _unknown_token(place: str, token: int, size: int, tokenizer: PreTrainedTokenizerBase) -> ActshiftError:
    problem = f"{place} needs the token {tokenizer.convert_ids_to_tokens(token)!r} (id {token})"
    fix = "Use the tokenizer of the model, or save the model with resized embeddings"
    return ActshiftError(f"{problem}, and the model has embeddings for only {size} tokens. {fix}.")


def _refuse_unknown_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the embedding of a model raise ActshiftError for tokens without a row, if the tokenizer has such tokens."""

    def check(module: Any, args: tuple[Any, ...]) -> None:
        largest, size = int(args[0].max()) if args[0].numel() else 0, int(module.weight.shape[0])
        if largest >= size:
            raise _unknown_token("A text", largest, size, tokenizer)

    embedding: Any = model.get_input_embeddings()
    if isinstance(embedding, torch.nn.Embedding) and len(tokenizer) > embedding.num_embeddings:
        embedding.register_forward_pre_hook(check)


def _unused_positions(config: Any) -> int:
    """Return how many rows of a model's position table no token uses: up to its padding id, or none."""
    model_class: Any = MODEL_MAPPING.get(type(config), None)
    module = sys.modules.get(getattr(model_class, "__module__", ""))
    for name, value in vars(module).items() if module else ():
        if name.endswith("Embeddings") and hasattr(value, "create_position_ids_from_inputs_embeds"):
            with suppress(TypeError, AttributeError), torch.device("meta"):
                padding = value(config).position_embeddings.padding_idx
                return 0 if padding is None else padding + 1
    return 0


@contextmanager
def short_errors(source: str) -> Generator[None]:
    """Replace errors of transformers and safetensors, often a paragraph with links, by a short ActshiftError."""
    try:
        yield
    except ActshiftError:
        raise
    except SafetensorError as error:
        raise ActshiftError(f"The weights of {source} are damaged ({error}). Download or copy them again.") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        explanation = next((text for phrase, text in _EXPLANATIONS.items() if phrase in str(error)), None)
        message = explanation.format(source) if explanation else f"{source} cannot be loaded: {first_line(error)}"
        raise ActshiftError(message) from error


def _check_source(source: str, revision: str | None) -> None:
    path = Path(source).expanduser()
    if revision is not None and not revision.strip():
        raise ActshiftError("The revision is empty. Give a branch, tag or commit, or leave it out for the main branch.")
    if revision is not None and path.exists():
        kind = "folder" if path.is_dir() else "file"
        raise ActshiftError(f"{source} is a {kind}, and only models on the hub have revisions. Leave out the revision.")
    if find_gguf(source) is not None:
        return
    if path.is_file():
        raise ActshiftError(f"{source} is a file. Give a model's folder, or a file whose name ends in {SUFFIX}.")
    if not path.exists():
        if path.suffix.lower() == SUFFIX:
            raise ActshiftError(f"There is no file {source}. Files on the hub must be downloaded first.")
        if path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2:  # no id on the hub
            raise ActshiftError(f"There is no folder {source}. Give a model's folder or its Hugging Face id.")
    elif (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise ActshiftError(f"{source} is an adapter, not a model. Give its base model, and this as the adapter.")
    elif not (path / "config.json").is_file():
        raise ActshiftError(f"The folder {source} has no config.json, so it contains no Hugging Face model.")


def _resolve_dtype(dtype: str, device: str) -> torch.dtype:
    check_choice("dtype", dtype, ("auto", "float32"))
    on_gpu = dtype == "auto" and device.startswith("cuda")
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported(False) else torch.float32  # False: not emulated


def _missing_weights(model: PreTrainedModel, info: Mapping[str, Any], head: Head) -> list[str]:
    """Return the weights that are missing or have another shape, except a classifier's head and an unused pooler."""
    missing = sorted([*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])])
    if head.task_type == "FEATURE_EXTRACTION":
        return [name for name in missing if not name.startswith("pooler.")]
    return [name for name in missing if not head.classifies or name.startswith(f"{model.base_model_prefix}.")]


@contextmanager
def _quiet(hide_warnings: bool) -> Generator[None]:
    """Hide the progress bar of copying the weights (not of downloads), and on request the warnings about heads."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    if bars:
        transformers_logging.disable_progress_bar()  # also disables the hub's progress bars
        enable_progress_bars()
    if hide_warnings:
        transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        transformers_logging.set_verbosity(verbosity)
