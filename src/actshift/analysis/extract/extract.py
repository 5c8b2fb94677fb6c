"""A fine-tuned checkpoint becomes an adapter of its base."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actshift.adapters.base import check_rank
from actshift.analysis.capture import Batch, check_tokens
from actshift.analysis.extract.distill import distill, held_out_kl
from actshift.analysis.extract.fit import Ranks, config_for, fit_layers, uniform, within
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS, oracle
from actshift.analysis.extract.report import ExtractReport, LayerFit, OracleReport
from actshift.analysis.progress import ProgressCallback, progress_counter
from actshift.errors import ActshiftError
from actshift.files import check_new_folder
from actshift.model_head import head_of
from actshift.sites import resolve
from actshift.tuner import attach, steering_layers
from actshift.tuner.classifier_head import name_classes, share_head
from actshift.tuner.layer import CONTAINER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_same_tokenizer(base: PreTrainedTokenizerBase, finetuned: PreTrainedTokenizerBase) -> None:
    """Raise ActshiftError unless both tokenizers give every token the same number.

    >>> from actshift.demo import load_base
    >>> check_same_tokenizer(load_base()[1], load_base()[1])
    """
    ours, theirs = base.get_vocab(), finetuned.get_vocab()
    if ours == theirs:
        return
    token = next(token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token))
    raise ActshiftError(
        f"the fine-tuned model has another tokenizer: {token!r} is {ours.get(token, 'no token')} in the base and "
        f"{theirs.get(token, 'no token')} there, so their activations cannot be compared token by token."
    )


FILE = "unfinished.safetensors"


@dataclass(frozen=True)
class FittedBlocks:
    """The fits of an extraction in one file of its folder; `key` names the models, the text and the ranks."""

    folder: Path
    key: str

    @classmethod
    def of(
        cls, folder: str | Path, batches: Sequence[Batch], settings: Mapping[str, Any], resume: bool
    ) -> FittedBlocks:
        """Open the folder of an extraction.

        Raises ActshiftError where it holds something and is not to be resumed, or is that of another extraction.
        """
        text = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for batch in batches:
            text.update(batch["input_ids"].cpu().numpy().tobytes())
        store = cls(Path(folder), text.hexdigest())
        if not resume:
            check_new_folder(store.folder)
        elif not (store.folder / FILE).is_file():
            raise ActshiftError(f"{folder} holds no unfinished extraction to go on with; leave --resume out.")
        elif store._stored()["key"] != store.key:
            raise ActshiftError(
                f"{folder} holds an extraction with other models, text or ranks; give what it began with, or another "
                "folder."
            )
        return store

    def load(self, model: nn.Module) -> dict[int, LayerFit]:
        """Put the stored fits into the model's adapters, and return their figures by layer."""
        if not (self.folder / FILE).is_file():
            return {}
        tensors = _tensors(model)
        with safe_open(self.folder / FILE, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  it is no mapping
                tensors[name].data.copy_(stored.get_tensor(name))
        return {one["layer"]: LayerFit(**one) for one in self._stored()["fits"]}

    def save(self, model: nn.Module, fits: Mapping[int, LayerFit]) -> None:
        """Write the adapters and the figures of the layers that are fitted, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{FILE}.{os.getpid()}.part"
        about = {"key": self.key, "fits": [asdict(fit) for fit in fits.values()]}
        try:
            save_file(
                {n: t.detach().contiguous() for n, t in _tensors(model).items()}, part, {"about": json.dumps(about)}
            )
            part.replace(self.folder / FILE)
        finally:
            part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Take the file away: the adapter is written."""
        (self.folder / FILE).unlink(missing_ok=True)

    def _stored(self) -> dict[str, Any]:
        try:
            with safe_open(self.folder / FILE, framework="pt") as stored:
                return json.loads(stored.metadata()["about"])
        except Exception as error:
            raise ActshiftError(f"{self.folder / FILE} is damaged; delete it and start again.") from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{layer.layer_index}.{name}": tensor
        for layer in steering_layers(model).values()
        for shift in layer.lora_steer.values()
        for name, tensor in shift.named_parameters()
    }


@dataclass(frozen=True)
class Extraction:
    """A steered model, the base with the extracted adapter, and what was found on the way."""

    model: Any
    report: ExtractReport


def extract(
    base: nn.Module,
    finetuned: nn.Module,
    batches: Sequence[Batch],
    rank: int = 8,
    budget: int | None = None,
    distill_steps: int = 0,
    learning_rate: float = 1e-3,
    linear: bool = True,
    ranks: Sequence[int] = RANKS,
    nonlinear_steps: int = NONLINEAR_STEPS,
    folder: str | Path | None = None,
    resume: bool = False,
    heard: ProgressCallback = lambda phase, done, total: None,
) -> Extraction:
    """Return the base with a linear post-block adapter that stands for what fine-tuning changed.

    The adapter is fitted in closed form, block by block, on any unlabelled text, and with `distill_steps` trained on KL
    after. `rank` is every block's; a `budget` of parameters is spent unevenly instead, where the oracle is largest.
    With `linear` the same is tried at full rank, to see what any linear map could. In `folder` each fit is kept, and
    `resume` goes on from there. `heard` is told the phase, and how many of its steps are done. A classifier's base is
    given the head of the fine-tuned one, which is saved with the adapter.

    Raises ActshiftError where the two are not versions of one model, there is too little text, or activations are
    not finite.
    Source: the oracle is arXiv 2603.00425's; the extraction is [ours], METHOD §3.
    """
    check_tokens(batches, 4, "the extraction")
    share_head(base, finetuned)
    twins = ModelPair.of(base, finetuned)
    width = resolve(base, layers=[0])[0].width
    check_rank(rank, width)
    settings = {"rank": rank, "budget": budget, "twins": [_name(base), _name(finetuned)], "width": width}
    store = FittedBlocks.of(folder, batches, settings, resume) if folder is not None else None
    measured = [one for one in ranks if one <= width]
    steps = nonlinear_steps + 2 * len(batches) if nonlinear_steps else len(batches)
    nonlinear_rank = min(8, max(measured))
    found = oracle(
        twins, batches, measured, nonlinear_rank, nonlinear_steps, progress_counter(heard, "The oracle's shifts", steps)
    )
    kl = {"base": found.kl_base, "oracle": found.kl_oracle}
    layers = range(len(twins.blocks))
    if linear:
        kl["linear"] = _linear(twins, batches, uniform(width, layers), heard)
    chosen = within(budget, found, width) if budget is not None else uniform(rank, layers)
    model = attach(base, config_for(chosen, head_of(base) or "CAUSAL_LM"))
    twins = replace(twins, base=model)
    fits = _fitted(twins, batches, chosen, store, heard)
    kl["closed_form"] = held_out_kl(twins, batches)
    if distill_steps:
        kl["distilled"] = distill(
            twins, batches, distill_steps, learning_rate, progress_counter(heard, "Distillation", distill_steps)
        )
    if store is not None:
        model.save_pretrained(str(store.folder), save_embedding_layers=False)
        name_classes(store.folder, finetuned)
        store.finish()
    return Extraction(model, _report(twins, batches, fits, kl, distill_steps, found))


def _linear(twins: ModelPair, batches: Sequence[Batch], ranks: Ranks, heard: ProgressCallback) -> float:
    """Return the KL that remains with a linear map of every rank at every block; the base is left as it was."""
    grads = {name: p.requires_grad for name, p in twins.base.named_parameters()}
    model = attach(twins.base, config_for(ranks, head_of(twins.base) or "CAUSAL_LM"))
    tried = replace(twins, base=model)
    try:
        fit_layers(tried, batches, ranks, on_batch=progress_counter(heard, "Linear maps", len(ranks) * len(batches)))
        return held_out_kl(tried, batches)
    finally:
        model.unload()
        for name, parameter in twins.base.named_parameters():
            parameter.requires_grad_(grads[name])


def _fitted(
    twins: ModelPair, batches: Sequence[Batch], ranks: Ranks, store: FittedBlocks | None, heard: ProgressCallback
) -> list[LayerFit]:
    done = store.load(twins.base) if store is not None else {}
    fits = dict(done)

    def keep(fit: LayerFit) -> None:
        fits[fit.layer] = fit
        if store is not None:
            store.save(twins.base, fits)

    count = (len(ranks) - len(done)) * len(batches)
    return fit_layers(twins, batches, ranks, done, keep, progress_counter(heard, "The adapter", count))


def _report(
    twins: ModelPair,
    batches: Sequence[Batch],
    fits: list[LayerFit],
    kl: dict[str, float],
    distill_steps: int,
    found: OracleReport,
) -> ExtractReport:
    mine = sum(p.numel() for name, p in twins.base.named_parameters() if CONTAINER in name)
    return ExtractReport(
        model=_name(twins.base),
        finetuned=_name(twins.finetuned),
        tokens=sum(int(batch["attention_mask"].sum()) for batch in batches),
        parameters=mine,
        checkpoint=sum(p.numel() for p in twins.finetuned.parameters()),
        layers=tuple(fits),
        kl=kl,
        distill_steps=distill_steps,
        oracle=found,
    )


def _name(model: Any) -> str:
    return getattr(model.config, "name_or_path", "") or type(model).__name__
