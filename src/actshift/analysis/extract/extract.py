"""Extract an adapter of a base model from its fine-tuned version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from actshift.adapters.base import check_rank
from actshift.analysis.capture import Batches, ProgressCallback, model_name, progress_counter, require_tokens
from actshift.analysis.extract.fit import (
    Ranks,
    check_rate,
    config_for,
    distill,
    fit_layers,
    ranks_within,
    validation_kl,
)
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS, oracle
from actshift.analysis.extract.report import ExtractReport, LayerFit
from actshift.errors import ActshiftError
from actshift.files import atomic_path, check_new_folder, move_into, private_folder
from actshift.gradients.backward import restored
from actshift.model_head import head_of
from actshift.sites import resolve
from actshift.tuner import attach, steering_layers
from actshift.tuner.classifier_head import copy_head, save_class_names
from actshift.tuner.layer import CONTAINER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "unfinished.safetensors"  # file with the adapters that are already fitted, deleted at the end


class Extraction(NamedTuple):
    """The base model with the extracted adapter, and the report of the extraction."""

    model: Any
    report: ExtractReport


def extract(
    base: nn.Module,
    finetuned: nn.Module,
    batches: Batches,
    rank: int = 8,
    budget: int | None = None,
    distill_steps: int = 0,
    learning_rate: float = 1e-3,
    linear: bool = True,
    ranks: Sequence[int] = RANKS,
    nonlinear_steps: int = NONLINEAR_STEPS,
    folder: str | Path | None = None,
    resume: bool = False,
    on_progress: ProgressCallback = lambda phase, done, total: None,
) -> Extraction:
    """Attach a linear post-block adapter to the base model that approximates its fine-tuned version.

    Block by block, the adapter Δ(h) = W_up W_down h + b minimises the ridge-penalised error

        mean_t ‖h_finetuned,t - h_t - Δ(h_t)‖² + λ ‖W_up W_down‖²    with W_down [r, d], W_up [d, r], b [d],

    where h_t is the block's output at token t on the stream that is already steered at earlier blocks. The solution has
    a closed form. It is computed in float64 and stored in the base's dtype. λ has the least error on validation rows
    (every third). With `distill_steps`, the adapter is then trained on KL(fine-tuned ‖ steered).

    Args:
        base: The base model. It carries the adapter afterwards; a classifier also receives the fine-tuned head.
        finetuned: A version of the base with other weights, of any dtype. It is not changed.
        batches: Unlabelled batches of any text; `actshift.token_batches` builds them.
        budget: Number of parameters to distribute over the blocks according to the oracle, instead of `rank`.
        distill_steps: Optimiser steps of distillation, one batch each, at `learning_rate`.
        linear: Report the KL with linear maps of full rank too, the best that any rank could reach.
        ranks: The ranks at which the report describes the oracle; those above the width d are ignored.
        nonlinear_steps: Steps to train the report's nonlinear maps; 0 skips them.
        folder: A new folder for the adapter, or with `resume`, one with an unfinished extraction to continue.

    Raises:
        ActshiftError: The models are not versions of one model, the rank or budget is unusable, there are too few
            tokens, an activation is not finite, or `folder` cannot be used.

    Source: arXiv 2603.00425 (oracle steering); the extraction is this project's, docs/method.md#extraction.

    >>> from copy import deepcopy
    >>> from actshift.analysis.batches import token_batches
    >>> from actshift.demo import load_base
    >>> base, tokenizer = load_base()
    >>> finetuned = deepcopy(base)
    >>> _ = finetuned.get_submodule("model.layers.5.mlp.down_proj").weight.data.mul_(1.5)
    >>> texts = ["what is the largest of three and four ?"] * 6
    >>> extraction = extract(base, finetuned, token_batches(texts, tokenizer, 2), rank=2, nonlinear_steps=0)
    >>> extraction.report.kl["closed_form"] < extraction.report.kl["base"]
    True
    """
    require_tokens(batches, 4, "the extraction")
    check_rate(learning_rate)
    copy_head(base, finetuned)
    pair = ModelPair.of(base, finetuned)
    width, layers = resolve(base, layers=[0])[0].width, range(len(pair.blocks))
    check_rank(rank, width)
    # The keys are part of the hash that an unfinished extraction is recognised by.
    settings = {"rank": rank, "budget": budget, "twins": [_weights(base), _weights(finetuned)], "width": width}
    store = FitStore(folder, batches, settings, resume) if folder is not None else None
    ranks = [r for r in ranks if r <= width]
    passes = nonlinear_steps + (2 if nonlinear_steps else 1) * len(batches)
    on_batch = progress_counter(on_progress, "Measuring the oracle", passes)
    oracle_report = oracle(pair, batches, ranks, min(8, max(ranks)), nonlinear_steps, on_batch)
    kl = {"base": oracle_report.kl_base, "oracle": oracle_report.kl_oracle}
    if linear:
        kl["linear"] = _full_rank_kl(pair, batches, dict.fromkeys(layers, width), on_progress)
    chosen = dict.fromkeys(layers, rank) if budget is None else ranks_within(budget, oracle_report, width)
    model = attach(base, config_for(chosen, head_of(base) or "CAUSAL_LM"))
    pair = replace(pair, base=model)
    done, on_layer = (store.load(model), partial(store.save, model)) if store else ({}, None)
    on_batch = progress_counter(on_progress, "Fitting the adapter", (len(chosen) - len(done)) * len(batches))
    fits = fit_layers(pair, batches, chosen, done, on_layer, on_batch)
    kl["closed_form"] = validation_kl(pair, batches)
    if distill_steps:
        on_step = progress_counter(on_progress, "Distilling", distill_steps)
        kl["distilled"] = distill(pair, batches, distill_steps, learning_rate, on_step)
    if store:
        store.finish(model, finetuned)
    names = model_name(model), model_name(finetuned)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    parameters = sum(p.numel() for name, p in model.named_parameters() if CONTAINER in name)
    checkpoint = sum(p.numel() for p in finetuned.parameters())
    report = ExtractReport(*names, tokens, parameters, checkpoint, tuple(fits), kl, distill_steps, oracle_report)
    return Extraction(model, report)


def _full_rank_kl(pair: ModelPair, batches: Batches, ranks: Ranks, on_progress: ProgressCallback) -> float:
    """Return the KL with linear maps of full rank at every block, and leave the base unchanged."""
    on_batch = progress_counter(on_progress, "Fitting linear maps", len(ranks) * len(batches))
    with restored(pair.base.parameters(), "requires_grad"):
        model = attach(pair.base, config_for(ranks, head_of(pair.base) or "CAUSAL_LM"))
        try:
            steered = replace(pair, base=model)
            fit_layers(steered, batches, ranks, on_batch=on_batch)
            return validation_kl(steered, batches)
        finally:
            model.unload()


class FitStore:
    """The finished fits of an extraction in one file. `key` is a hash of the models, the text and the ranks.

    Raises ActshiftError if the folder is not empty, or with `resume`, contains no extraction with this key.
    """

    def __init__(self, folder: str | Path, batches: Batches, settings: Mapping[str, Any], resume: bool) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for batch in batches:
            digest.update(batch["input_ids"].cpu().numpy().tobytes())
        self.folder, self.file, self.key = Path(folder), Path(folder, UNFINISHED), digest.hexdigest()
        check_folder(folder, resume)
        if resume and self._metadata()["key"] != self.key:
            other = f"{folder} holds an extraction with other models, text or ranks"
            raise ActshiftError(f"{other}; use the same ones, or another folder.")

    def load(self, model: nn.Module) -> dict[int, LayerFit]:
        """Fill the adapters of the model from the file, and return the stored fits by layer."""
        if not self.file.is_file():
            return {}
        tensors = _adapter_tensors(model)
        for name, tensor in load_file(self.file).items():
            tensors[name].data.copy_(tensor)
        return {fit["layer"]: LayerFit(**fit) for fit in self._metadata()["fits"]}

    def save(self, model: nn.Module, fits: Mapping[int, LayerFit]) -> None:
        """Write the adapters and fits atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"key": self.key, "fits": [asdict(fit) for fit in fits.values()]}
        tensors = {name: tensor.detach().contiguous() for name, tensor in _adapter_tensors(model).items()}
        with atomic_path(self.file) as temporary:
            save_file(tensors, temporary, {"about": json.dumps(about)})

    def finish(self, model: Any, finetuned: nn.Module) -> None:
        """Save the adapter, with the class names of a classifier, and delete the file."""
        with private_folder(self.folder) as private:
            folder = private / "adapter"
            model.save_pretrained(str(folder), save_embedding_layers=False)
            save_class_names(folder, finetuned)
            move_into(self.folder, folder)
        self.file.unlink(missing_ok=True)

    def _metadata(self) -> dict[str, Any]:
        try:
            with safe_open(self.file, framework="pt") as stored:
                return json.loads(stored.metadata()["about"])
        except Exception as error:
            raise ActshiftError(f"{self.file} is damaged; delete it and start again.") from error


def _weights(model: nn.Module) -> str:
    """Return a hash of the name, the type and about 64 values of each parameter."""
    digest = hashlib.sha256(model_name(model).encode())
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()[:: max(1, parameter.numel() // 64)].double()
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode() + values.cpu().numpy().tobytes())
    return digest.hexdigest()


def check_folder(folder: str | Path, resume: bool) -> None:
    """Raise ActshiftError unless a folder is new or empty, or with `resume`, contains an unfinished extraction."""
    unfinished = Path(folder, UNFINISHED).is_file()
    if unfinished and not resume:
        raise ActshiftError(f"{folder} holds an unfinished extraction; continue it with --resume, or remove it.")
    if resume and not unfinished:
        raise ActshiftError(f"{folder} holds no unfinished extraction to resume; omit --resume.")
    if not resume:
        check_new_folder(folder)


def _adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{layer.layer_index}.{name}": tensor
        for layer in steering_layers(model).values()
        for shift in layer.lora_steer.values()
        for name, tensor in shift.named_parameters()
    }


def check_same_tokenizer(base: PreTrainedTokenizerBase, finetuned: PreTrainedTokenizerBase) -> None:
    """Raise ActshiftError unless both tokenizers have the same id for every token."""
    ids, other = base.get_vocab(), finetuned.get_vocab()
    if different := [token for token in {**ids, **other} if ids.get(token) != other.get(token)]:
        first, second = (vocabulary.get(different[0], "no token") for vocabulary in (ids, other))
        difference = f"{different[0]!r} is {first} in the base and {second} there"
        raise ActshiftError(f"The fine-tuned model has another tokenizer: {difference}. These cannot be compared.")
