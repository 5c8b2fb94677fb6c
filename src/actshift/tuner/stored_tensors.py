"""Check which tensors an adapter's file contains, because loading it must not change the base model.

Allowed are the adapter's own tensors, whole modules that the config names (`modules_to_save`, a classifier's head), and
embeddings. PEFT saves embeddings after the vocabulary was resized, or with `save_embedding_layers=True`. It would
overwrite the base model with them, so only the rows of new tokens may differ.
"""

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.gguf import find_gguf
from actshift.sites.blocks import unwrap
from actshift.tuner.checkpoint import Checkpoint, Shape

WRAPPERS: Any = (AuxiliaryTrainingWrapper, BaseTunerLayer)  # the classes of modules that PEFT puts around others


class AnyModule(Container[str]):
    """Contains every name, for LoRA adapters of PEFT, whose targets are not resolved here."""

    def __contains__(self, name: object) -> bool:
        return True


def saved_modules(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Module]:
    """Return the modules that `modules_to_save` refers to, which are those whose names end with one of its elements."""
    ends = tuple(names or ())
    modules = model.named_modules(remove_duplicate=False) if ends else ()
    return {name: module for name, module in modules if name.endswith(ends) and "modules_to_save." not in name}


def check_saved_modules(names: Iterable[str] | None, adapter_name: str, tensors: Iterable[str]) -> None:
    """Check that `modules_to_save` names no module of an adapter with these tensors, or around one.

    Raises:
        ActshiftError: if it does. PEFT would wrap or copy the adapter's own modules.
    """
    ends = tuple(names or ())
    for tensor in tensors if ends else ():
        for part in (adapter_name, *accumulate(tensor.split("."), "{}.{}".format)):
            if part.endswith(ends):
                problem = f"modules_to_save {list(ends)} matches {part!r}, which the adapter itself uses for {tensor!r}"
                raise ActshiftError(f"{problem}. Name only modules that it does not change, such as the head.")


def check_stored(
    model: nn.Module,
    stored: Checkpoint,
    expected: Mapping[str, Shape],
    modules: Iterable[str] | None,
    adapted: Container[str],
) -> None:
    """Check that a file contains the tensors of an adapter for a model, and nothing that changes the base model.

    Args:
        model: The model without its PEFT wrapper, to which the adapter is not attached yet.
        expected: Shapes of the adapter's tensors by name. The file must contain all of them.
        modules: The `modules_to_save` of the config.
        adapted: Names of modules with LoRA whose tensors are not in `expected`.

    Raises:
        ActshiftError: for a tensor that is missing, foreign, of another shape or not finite.
    """
    saved = saved_modules(model, modules)
    required = {**expected, **{name: tuple(tensor.shape) for name, tensor in _tensors(saved).items()}}
    others = [name for name in stored.shapes if name not in required and not _is_lora(name, adapted)]
    base = embeddings(model) if others else {}
    copies = {f"{name}.modules_to_save" for name in saved}  # PEFT saves them again next to embeddings
    rows = [name for name in others if name.rpartition(".")[0] not in copies]
    foreign = {name for name in rows if _in_base(name) not in base}
    stored.check_fits(required, foreign)
    kept = first_new_row(model) if rows else 0
    for name in rows:
        _check_vocabulary(stored, name, tuple(base[_in_base(name)].shape))
    for name, tensor in stored.tensors():
        if name in rows:
            check_rows(name, tensor, base[_in_base(name)], kept)


def embeddings(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the input and output embeddings of a model by name, under every name of tied ones."""
    found: list[Any] = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        try:
            found.append(getattr(model, getter)())
        except (AttributeError, NotImplementedError):
            continue  # a model without embeddings
    layers = [layer for layer in found if isinstance(layer, nn.Module)]
    modules = model.named_modules(remove_duplicate=False) if layers else ()
    return _tensors({name: module for name, module in modules if any(module is layer for layer in layers)})


def first_new_row(model: nn.Module) -> int:
    """Return the vocabulary size of the checkpoint that a model was loaded from, before it was resized.

    It is in the checkpoint's config. For a model without a checkpoint, transformers keeps it in the model's body.
    """
    bare: Any = unwrap(model)
    with suppress(AttributeError, OSError, TypeError, ValueError):
        if find_gguf(bare.name_or_path) is None:
            revision = getattr(bare.config, "_commit_hash", None)
            original = bare.config.from_pretrained(bare.name_or_path or None, revision=revision, local_files_only=True)
            return int(original.get_text_config().vocab_size)
    body = getattr(bare, getattr(bare, "base_model_prefix", ""), None)
    return int(getattr(body, "vocab_size", None) or 2**31)  # no row is new


def check_rows(name: str, stored: Tensor, base: Tensor, kept: int) -> None:
    """Check that the first `kept` rows of stored embeddings equal the base model's, up to their precision.

    Raises:
        ActshiftError: if they differ.
    """
    comparable = stored.shape == base.shape and stored.is_floating_point() and not base.is_meta
    dtype = max((stored.dtype, base.dtype), key=lambda dtype: torch.finfo(dtype).eps) if comparable else base.dtype
    if not comparable or not torch.equal(stored[:kept].to(dtype), base[:kept].to("cpu", dtype)):
        allowed = "an adapter may bring only embeddings of tokens by which the vocabulary was resized"
        fix = "load the base model that it was trained on, or train the embeddings through modules_to_save"
        raise ActshiftError(
            f"The adapter's file would overwrite {name!r} of the base model; {allowed}. {fix.capitalize()}."
        )


@torch.no_grad()
def copy_new_rows(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Copy the embeddings of new tokens into a model. Names are as in the model, without PEFT's prefix.

    Raises:
        ActshiftError: for a tensor that does not belong to embeddings, or that differs from the base model in the rows
            of other tokens. The model is then unchanged.
    """
    base = embeddings(unwrap(model)) if stored else {}
    kept = first_new_row(model) if stored else 0
    for name, tensor in stored.items():
        if _in_base(name) not in base:
            raise ActshiftError(f"The adapter's tensors hold the foreign {name!r}, a weight of the base model.")
        check_rows(name, tensor.cpu(), base[_in_base(name)], kept)
    for name, tensor in stored.items():
        own = base[_in_base(name)]
        own[kept:] = tensor[kept:].to(own)


def _check_vocabulary(stored: Checkpoint, name: str, own: Shape) -> None:
    if (rows := stored.shapes[name]) != own:
        sizes = f"{stored.path} holds embeddings {name!r} of shape {list(rows)}, and those of the model are {list(own)}"
        fix = f"resize its vocabulary before loading: model.resize_token_embeddings({rows[0] if rows else 0})"
        raise ActshiftError(f"{sizes}. If the vocabulary was resized for training, {fix}.")


def _is_lora(name: str, adapted: Container[str]) -> bool:
    module, mark, _ = name.partition(".lora_")
    return module.replace(".base_layer", "") in adapted and (bool(mark) or name.endswith(".trainable_tokens_delta"))


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of modules by name. For a module that PEFT has wrapped, these are the original's."""
    states = {name: without_wrappers(module).state_dict() for name, module in modules.items()}
    return {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()}


def without_wrappers(module: nn.Module) -> nn.Module:
    """Return the module of the base model inside the wrappers of PEFT."""
    while isinstance(module, WRAPPERS):
        attribute = "original_module" if isinstance(module, AuxiliaryTrainingWrapper) else "base_layer"
        if not isinstance(inner := getattr(module, attribute, None), nn.Module):
            break  # a steering layer wraps nothing
        module = inner
    return module


def _in_base(name: str) -> str:
    """Return the name that a stored tensor of the base model has without the wrappers of PEFT."""
    for wrapper in (".original_module.", ".token_adapter.", ".base_layer."):
        name = name.replace(wrapper, ".")
    return name
