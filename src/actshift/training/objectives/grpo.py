"""Reinforcement learning with TRL's GRPO (Shao et al., *DeepSeekMath*, arXiv 2402.03300).

The reference policy, if there is one, is the model before training: the same model with its adapter switched off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from actshift.data import PROMPTS, is_chat, to_prompt_completion, token_ids
from actshift.data.encode import Encoded, EncodedExample, indices_within
from actshift.errors import ActshiftError
from actshift.tasks import Scorer, completion_length
from actshift.training.objectives.objective import Examples, Objective, check_context, check_settings, remove_reference
from actshift.training.rewards import run_rewards, run_scorer, try_rewards
from actshift.training.settings import TrainSettings


@dataclass(frozen=True)
class Prompts(Encoded):
    """Rows as text: `prompt`, the row's other columns, its own completion as `reference`, and `answer` if known."""

    tokens: int
    rendered: bool  # by a chat template

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt with the longest possible completion."""
        return self.tokens


class Grpo(Objective):
    """Raise the probability of those sampled completions that have a higher reward than the others of their prompt."""

    name = "grpo"
    summary = "maximise a reward"
    kinds = (("prompt", "completion"), ("messages",), *PROMPTS)
    metrics: ClassVar = {"reward": "reward"}
    trainer = "trl.trainer.grpo_trainer:GRPOTrainer"
    arguments = "trl.trainer.grpo_config:GRPOConfig"

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any, config: Any = None) -> Prompts:
        """Return prompts with the columns that rewards read. Every reward is called on the first two rows.

        Raises:
            ActshiftError: a prompt is too long, a row lacks an answer, a reward fails, or settings do not fit.
        """
        check_settings(settings)
        _check_batches(settings)
        scorer, rewards, rendered = run_scorer(settings), run_rewards(settings), is_chat(rows)
        rows = to_prompt_completion(rows, tokenizer)
        ids = token_ids(tokenizer, rows["prompt"], add_special_tokens=not rendered)
        if [] in ids:
            raise ActshiftError(f"The prompt of row {ids.index([]) + 1} is empty; give every row a prompt.")
        kept = indices_within([len(prompt) for prompt in ids], settings.max_length, "prompt")
        new_tokens = completion_length(settings.max_new_tokens, settings.task)
        lengths = [len(ids[row]) + new_tokens for row in kept]
        check_context(lengths, f"{new_tokens} new tokens", tokenizer, config)
        whole = [_example(row, scorer) for row in rows]
        missing = [number for number, example in enumerate(whole, start=1) if example.get("answer") is None]
        if missing and "right_answer" in (settings.reward or ()):
            fix = f"add a column answer, or a completion in which the scorer {scorer.name} finds one"
            raise ActshiftError(f"Row {missing[0]} has no answer, which right_answer needs; {fix}.")
        examples = [whole[row] for row in kept]
        try_rewards(rewards, examples[:2])
        return Prompts(examples, len(ids) - len(kept), max(lengths), rendered)

    def model_inputs(self, encoded: Any, tokenizer: Any) -> list[EncodedExample]:
        """Return the prompts."""
        texts = [example["prompt"] for example in encoded.examples]
        return [{"input_ids": ids} for ids in token_ids(tokenizer, texts, add_special_tokens=not encoded.rendered)]

    def training_arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's arguments. With evaluation, the checkpoint of the highest reward is kept."""
        if common["eval_strategy"] != "no":
            common |= {"metric_for_best_model": "eval_reward", "greater_is_better": True}
        return super().training_arguments(
            settings,
            num_generations=settings.generations,
            num_generations_eval=1,
            max_completion_length=completion_length(settings.max_new_tokens, settings.task),
            temperature=settings.temperature,
            beta=settings.beta or 0.0,
            disable_dropout=settings.lora_dropout == 0,
            **common,
        )

    def trainer_kwargs(self, examples: Examples, settings: TrainSettings, arguments: Any) -> dict[str, Any]:
        """Return the rewards and the datasets. Rows are repeated to fill a batch: TRL drops an incomplete one."""
        datasets = super().trainer_kwargs(examples, settings, arguments)
        rows, prompts = datasets["train_dataset"], arguments.generation_batch_size // arguments.num_generations
        repeated = [index % len(rows) for index in range(max(prompts, len(rows)))]
        return {**datasets, "train_dataset": rows.select(repeated), "reward_funcs": run_rewards(settings)}

    def build_trainer(self, model: Any, examples: Any, settings: Any, arguments: Any, callbacks: Any) -> Any:
        """Return the trainer, whose tokenizer encodes prompts as actshift does, and whose reference has no adapter."""
        trainer = super().build_trainer(model, examples, settings, arguments, callbacks)
        remove_reference(model)
        trainer.processing_class = PromptTokenizer(examples.tokenizer, examples.train.rendered)
        return trainer


class PromptTokenizer:
    """Replaces the tokenizer of a GRPOTrainer: it encodes prompts with `token_ids` and is never saved."""

    def __init__(self, tokenizer: Any, rendered: bool) -> None:
        self.tokenizer, self.rendered = tokenizer, rendered

    def __call__(self, text: Sequence[str]) -> dict[str, list[list[int]]]:
        """Return the ids of prompts; a chat template has added the special tokens already."""
        return {"input_ids": token_ids(self.tokenizer, text, add_special_tokens=not self.rendered)}

    def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool = True) -> list[str]:
        """Return the texts of completions."""
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens))

    def save_pretrained(self, folder: str) -> None:
        """Do nothing: checkpoints contain no tokenizer."""


def _check_batches(settings: TrainSettings) -> None:
    batch, passes = settings.batch_size, settings.gradient_accumulation
    if batch * passes % settings.generations:
        product = f"batch_size {batch} × gradient_accumulation {passes} = {batch * passes} completions"
        fix = f"which is not a multiple of {settings.generations} generations per prompt; change one of them"
        raise ActshiftError(f"{product}, {fix}.")
    if settings.beta and settings.method == "full":
        raise ActshiftError("beta needs a second copy of the model as the reference; leave it out, or use lora.")


def _example(row: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    example = {name: value for name, value in row.items() if name != "completion"}
    if "completion" in row:
        example["reference"] = row["completion"]
        if "answer" not in row and (answer := scorer.extract(row["completion"], row)) is not None:
            example["answer"] = answer
    return example
