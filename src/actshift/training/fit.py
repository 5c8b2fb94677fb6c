"""The training loop, for adapters and whole models."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, DivergedError, first_line, require
from actshift.model_head import labels_of
from actshift.training.data import Inputs, infer_objective
from actshift.training.objectives import OBJECTIVES, Examples, Objective
from actshift.training.result import FitResult
from actshift.training.rewards import RewardError
from actshift.training.run_folder import RunFolder
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from actshift.training.trainer import Checkpoints

LOGS = 100  # about how often a run logs its loss
CHECKPOINTS = 10  # about how often a run saves its state (and evaluates) by default
SAME_EMBEDDING = 0.01  # embeddings that differ by less than this share of their norm count as never trained


def fit(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Dataset,
    settings: TrainSettings,
    eval_rows: Dataset | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    *,
    title: str = "Training",
) -> FitResult:
    """Train the parameters of `model` that require gradients, in place, and leave it in evaluation mode.

    Args:
        model: a PeftModel with an adapter, or any model.
        train_rows: rows as `load_rows` returns them.
        settings: the settings of the optimisation; the model, the data and the adapter in them are ignored.
        eval_rows: rows for evaluation; the state with the best score on them is kept, instead of the last one.
        out: the folder for checkpoints, as `out/checkpoints`. They stay until the caller has saved the result.
        resume: continue from the newest checkpoint in `out`; on a CPU, as if the run had not been interrupted.

    Raises:
        ActshiftError: trl is not installed, no parameter requires gradients, every row is too long, the run diverges,
            the disk is full, or `out` contains a run with other settings or rows, or is in use by another process.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> fit(model, tokenizer, load_rows("rows.jsonl"), TrainSettings(learning_rate=1e-4))  # doctest: +SKIP
    """
    config: Any = model.config
    objective = OBJECTIVES[settings.objective] if settings.objective else infer_objective(train_rows)
    head = objective.head(train_rows, labels_of(config))
    inputs = Inputs(objective, train_rows, eval_rows, head, config)
    examples = inputs.examples(tokenizer, _as_steered(settings, model))
    with TemporaryDirectory() as scratch:
        folder = RunFolder(Path(out or scratch))
        run = TrainingRun(folder, objective, examples, settings, resume, keep=out is not None, title=title)
        with folder.locked():
            run.start(model)
            return run.train(model)


@dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to train a model."""

    folder: RunFolder
    objective: Objective
    examples: Examples
    settings: TrainSettings
    resume: bool  # continue from the newest checkpoint in the folder, if there is one
    keep: bool = True  # write checkpoints for a later resume
    title: str = "Training"

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return self.settings.total_steps(len(self.examples.train.examples))

    @property
    def saves(self) -> bool:
        """True if the run writes checkpoints; with evaluation the best state is kept as one."""
        return self.keep or self.examples.held_out is not None

    def start(self, model: nn.Module) -> None:
        """Raise ActshiftError if anything prevents the run (see `fit`), and record it in its folder."""
        require("trl", "train")
        trainable, _ = parameter_counts(model)
        if self.saves:
            self.folder.check_space(trainable)
        if self.settings.cache_prefix != "off":
            from actshift.training.prefix_cache import check_prefix

            inputs = self.objective.model_inputs(self.examples.train, self.examples.tokenizer)
            check_prefix(model, self.settings, inputs, self.examples.tokenizer, self.steps)
        self.folder.start(self.settings, self.examples.digest, self.resume)

    def train(self, model: Any) -> FitResult:
        """Train the parameters of `model` after `start`; raises ActshiftError if it diverges or the disk is full."""
        from actshift.training import prefix_cache
        from actshift.training import trainer as loop

        trainable, parameters = parameter_counts(model)
        latest = self.folder.latest(self.steps) if self.resume else None
        clock, stop = loop.Checkpoints(self.folder, latest), loop.StopAtNan()
        warn_of_unknown_end(model, self.examples.tokenizer)
        progress = loop.ProgressBar(self.title)
        with progress.bar, ExitStack() as stack:
            stack.enter_context(loop.quiet_libraries())
            stack.enter_context(loop.restore_model_after(model))
            stack.enter_context(self.folder.explain_full_disk(trainable))
            callbacks = [stop, loop.EnforceEachEpoch(), clock, progress]
            trainer = self.objective.build_trainer(model, self.examples, self.settings, self.arguments(), callbacks)
            if self.settings.cache_prefix != "off":
                stack.enter_context(prefix_cache.cached_prefix(model, self.settings, self.folder.checkpoints))
            with self._explained_errors(clock):
                trainer.train(resume_from_checkpoint=str(latest) if latest else None)
                loop.finalize_adapters(model.eval())
        history, best = trainer.state.log_history, trainer.state.best_global_step or self.steps
        losses = [entry["loss"] for entry in history if "loss" in entry]
        eval_loss = min((entry["eval_loss"] for entry in history if "eval_loss" in entry), default=None)
        stop.check_weights(model, self.steps, self.settings.rate)
        self._check_finished(model, losses[0], eval_loss)
        return FitResult(
            steps=self.steps,
            train_loss=losses[-1],
            eval_loss=eval_loss,
            best_step=best,
            rows=len(self.examples.train.examples),
            left_out=self.examples.train.left_out,
            trainable=trainable,
            parameters=parameters,
            seconds=clock.seconds,
            figures=_logged_metrics(self.objective.metrics, history, best),
        )

    @contextmanager
    def _explained_errors(self, clock: Checkpoints) -> Generator[None, None, None]:
        """Convert errors of a failed reward, of a diverged run and of a checkpoint that cannot be loaded."""
        from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

        from actshift.training.divergence import diverged

        try:
            yield
        except RewardError:
            self.folder.forget_rewards()
            raise
        except (DivergedError, LinAlgError) as error:  # of an adapter's own step, before the weights are checked
            raise diverged(f"The run diverged ({first_line(error)})", self.settings.rate) from error
        except Exception as error:
            if clock.latest is None or clock.running or isinstance(error, ActshiftError):
                raise
            problem = f"The checkpoint {clock.latest} cannot be loaded ({first_line(error).partition('. ')[0]})"
            raise ActshiftError(f"{problem}; remove it to continue from an older one.") from error

    def _check_finished(self, model: Any, start_loss: float, eval_loss: float | None) -> None:
        """Raise ActshiftError if the loss of the finished model is not finite, or beyond reason.

        Without an evaluation loss, the loss is computed on a few short training rows.
        """
        from actshift.training.divergence import MAX_LOSS, diverged, final_loss

        if (loss := eval_loss) is None:
            rows = self.objective.model_inputs(self.examples.train, self.examples.tokenizer)
            loss = final_loss(model, rows, self.examples.tokenizer, language=self.objective.task_type == "CAUSAL_LM")
        if not loss <= max(MAX_LOSS, 10 * start_loss):
            raise diverged(f"The run diverged: the loss of the finished model is {loss:.3g}", self.settings.rate)

    def arguments(self) -> TrainingArguments:
        """Return the trainer's arguments, or raise ActshiftError if several GPUs are visible, which TRL cannot use."""
        import torch

        from actshift.training.trainer import uses_bf16

        if torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
            raise ActshiftError(f"{torch.cuda.device_count()} GPUs are visible; choose one: CUDA_VISIBLE_DEVICES=0.")
        settings, evaluates = self.settings, self.examples.held_out is not None
        every, bf16 = settings.save_steps or math.ceil(self.steps / CHECKPOINTS), uses_bf16(settings)
        return self.objective.training_arguments(
            settings,
            output_dir=str(self.folder.checkpoints),
            learning_rate=settings.rate,
            max_steps=self.steps,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            warmup_steps=settings.warmup,  # a value below 1 is a share of the steps
            weight_decay=settings.weight_decay,
            lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
            seed=settings.seed,
            bf16=bf16,
            use_cpu=bf16 and not torch.cuda.is_available(),  # otherwise bf16 requires a GPU
            gradient_checkpointing=settings.gradient_checkpointing,
            logging_steps=max(1, self.steps // LOGS),
            logging_nan_inf_filter=False,  # `StopAtNan` needs these values
            save_strategy="steps" if self.saves else "no",
            save_steps=every,
            eval_strategy="steps" if evaluates else "no",
            eval_steps=every,
            load_best_model_at_end=evaluates,
            metric_for_best_model="eval_loss" if evaluates else None,
            train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=True,
            report_to="none",
        )


def _as_steered(settings: TrainSettings, model: nn.Module) -> TrainSettings:
    """Return the settings by which to encode rows: an adapter of some tokens needs one example for each turn."""
    from actshift.tuner import steering_layers

    layers = steering_layers(model).values()
    limited = any(positions.where != "all" for layer in layers for positions in layer.positions.values())
    return replace(settings, positions="prompt") if limited and settings.steers else settings


def _logged_metrics(names: Mapping[str, str], history: Sequence[Mapping[str, float]], best: int) -> dict[str, float]:
    """Return the first and last logged values of the metrics in `names`, and their values in the best evaluation."""
    metrics: dict[str, float] = {}
    for entry in history:
        for key, name in names.items():
            if key in entry:
                metrics.setdefault(f"{name}_start", entry[key])
                metrics[name] = entry[key]
            if f"eval_{key}" in entry and entry["step"] <= best:
                metrics[f"eval_{name}"] = entry[f"eval_{key}"]
    return metrics


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of trained and of all parameters, or raise ActshiftError if none requires gradients."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not trainable:
        raise ActshiftError(f"No parameter of {type(model).__name__} requires gradients; attach an adapter first.")
    return trainable, sum(parameter.numel() for parameter in model.parameters())


def warn_of_unknown_end(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if the output embedding of the end-of-text token is frozen and equal, up to noise, to other embeddings.

    Tokens that are absent from the pretraining corpus have the same embedding. The probabilities of all of them are
    equal for any hidden state, so such an end-of-text token is never the most likely one.
    """
    head = model.get_output_embeddings()
    if head is None or head.weight.requires_grad:
        return
    weights = head.weight.detach()
    end = weights[tokenizer.eos_token_id].float()
    limit = SAME_EMBEDDING * end.norm()
    if same := sum(int(((part.float() - end).norm(dim=1) < limit).sum()) for part in weights.split(8192)) - 1:
        warnings.warn(
            f"The model cannot distinguish its end-of-text token {tokenizer.eos_token!r} from {same} others that it "
            "never saw either, and will not learn to stop; save its tokenizer with an eos_token that it knows.",
            stacklevel=2,
        )
