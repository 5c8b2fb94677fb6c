"""Reinforcement learning by TRL's GRPO: of several sampled completions of a prompt, those of more reward get likelier.

Shao et al., *DeepSeekMath*, 2024 (arXiv 2402.03300). With an adapter the reference policy, if there is one, is the
same model with the adapter switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from actshift.data import PROMPTS, to_prompt_completion, token_ids
from actshift.data.encode import Encoded, Example, short_enough
from actshift.errors import ActshiftError
from actshift.tasks import Scorer, completion_length
from actshift.training.objectives.limits import check_room, check_settings
from actshift.training.objectives.objective import Objective
from actshift.training.rewards import rewards_of, scorer_of, try_rewards
from actshift.training.settings import TrainSettings


@dataclass(frozen=True)
class Prompts(Encoded):
    """Rows as text: `prompt` and what else a row holds, its own completion as `reference`, and an `answer` if known.

    `tokens` is the length of the longest prompt with the longest completion; `rendered` says whether a chat template
    wrote the prompts.
    """

    tokens: int
    rendered: bool

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt, and as many as a completion may have."""
        return self.tokens


class Grpo(Objective):
    """Learn to complete prompts for a reward."""

    name = "grpo"
    kinds = (("prompt", "completion"), ("messages",), *PROMPTS)
    figures: ClassVar = {"reward": "reward"}

    def encode(self, rows: Any, tokenizer: Any, settings: TrainSettings, head: Any) -> Prompts:
        """Return prompts with what rewards go by; every reward is tried on the first two rows.

        Raises ActshiftError for a prompt that leaves no room for a completion, a row without an answer that a reward
        needs, a reward that fails, and settings that do not fit.
        """
        check_settings(settings)
        _check_batches(settings)
        scorer, rewards = scorer_of(settings), rewards_of(settings)
        rendered = "messages" in rows.column_names
        rows = to_prompt_completion(rows, tokenizer)
        ids = token_ids(tokenizer, rows["prompt"], add_special_tokens=not rendered)
        if [] in ids:
            raise ActshiftError(f"The prompt of row {ids.index([]) + 1} is empty, and its tokenizer adds nothing.")
        kept = short_enough([len(prompt) for prompt in ids], settings.max_length, "prompt")
        lengths = [len(ids[place]) + completion_length(settings.max_new_tokens, settings.task) for place in kept]
        check_room(
            lengths, f"{completion_length(settings.max_new_tokens, settings.task)} new tokens", settings, tokenizer
        )
        whole = [_example(row, scorer) for row in rows]
        _check_answers(whole, settings)
        examples = [whole[place] for place in kept]
        try_rewards(rewards, examples[:2])
        return Prompts(examples, len(ids) - len(kept), max(lengths), rendered)

    def read(self, encoded: Any, tokenizer: Any) -> list[Example]:
        """Return the prompts."""
        texts = [example["prompt"] for example in encoded.examples]
        return [{"input_ids": ids} for ids in token_ids(tokenizer, texts, add_special_tokens=not encoded.rendered)]

    def arguments(self, settings: TrainSettings, **common: Any) -> Any:
        """Return TRL's settings; where a run is evaluated, the state of most reward is kept."""
        from trl.trainer.grpo_config import GRPOConfig

        if common["eval_strategy"] != "no":
            common |= {"metric_for_best_model": "eval_reward", "greater_is_better": True}
        return GRPOConfig(
            num_generations=settings.generations,
            num_generations_eval=1,
            max_completion_length=completion_length(settings.max_new_tokens, settings.task),
            temperature=settings.temperature,
            beta=settings.beta or 0.0,
            disable_dropout=settings.lora_dropout == 0,
            **common,
        )

    def trainer_class(self) -> Any:
        """Return TRL's GRPOTrainer, whose reference is the model without its adapter."""
        from actshift.training.objectives.trl_trainers import RewardTrainer

        return RewardTrainer

    def given(self, job: Any, arguments: Any) -> dict[str, Any]:
        """Return the rewards, and the rows as often as fill a batch: it trains on whole ones only."""
        datasets = super().given(job, arguments)
        rows, prompts = datasets["train_dataset"], arguments.generation_batch_size // arguments.num_generations
        enough = [place % len(rows) for place in range(max(prompts, len(rows)))]
        return {**datasets, "train_dataset": rows.select(enough), "reward_funcs": rewards_of(job.settings)}

    def trainer(self, model: Any, job: Any, arguments: Any, callbacks: Any) -> Any:
        """Return its trainer, which reads prompts as everything else here does."""
        from actshift.training.objectives.trl_trainers import Reader

        trainer = super().trainer(model, job, arguments, callbacks)
        trainer.processing_class = Reader(job.tokenizer, job.examples.train.rendered)
        return trainer


def _check_batches(settings: TrainSettings) -> None:
    together = settings.batch_size * settings.gradient_accumulation
    if together % settings.generations:
        raise ActshiftError(
            f"A step takes batch_size {settings.batch_size} × gradient_accumulation {settings.gradient_accumulation} = "
            f"{together} completions, which is no multiple of {settings.generations} generations a prompt; change one."
        )
    if settings.beta and settings.method == "full":
        raise ActshiftError(
            "beta keeps the model near what it was, which needs a second copy of it where every weight is trained; "
            "leave beta out, or train an adapter."
        )


def _example(row: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    example = {name: value for name, value in row.items() if name != "completion"}
    if "completion" in row:
        example["reference"] = row["completion"]
        if "answer" not in row and (answer := scorer.extract(row["completion"], row)) is not None:
            example["answer"] = answer
    return example


def _check_answers(examples: list[dict[str, Any]], settings: TrainSettings) -> None:
    if "right_answer" not in (settings.reward or ()):
        return
    if missing := [number for number, example in enumerate(examples, start=1) if example.get("answer") is None]:
        raise ActshiftError(
            f"Row {missing[0]} has no answer, by which right_answer judges; add a column answer to the rows, or a "
            f"completion in which the scorer {scorer_of(settings).name} finds one."
        )
