"""Positions in TRL's trainers: prompts end where its labels begin, and packing is refused."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, SteeringConfig
from actshift.sites import Positions
from actshift.tuner import prompt_scope, steering_layers
from tests.contract.cases import fresh_model
from tests.integration.test_trainers import arguments


def config() -> SteeringConfig:
    return SteeringConfig(rank=4, positions=Positions.ends(first=2, last=1), task_type="CAUSAL_LM")


def lengths_seen(model) -> list[torch.Tensor]:
    """Record the prompt lengths of every later forward pass."""
    seen: list[torch.Tensor] = []

    def record(layer, args, output):
        tokens = prompt_scope._forward.get()[layer.prompts].tokens
        if tokens is not None:  # DPO's reference pass has no adapter, and so no prompts
            seen.append(tokens.length.flatten())

    next(iter(steering_layers(model).values())).register_forward_hook(record)
    return seen


@pytest.mark.parametrize("packing", [False, True])
def test_sft_derives_prompt_lengths_from_labels(tmp_path, word_tokenizer, packing):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = [{"prompt": "a1 " * (1 + i % 3), "completion": f"b{i % 5} b1" if i % 2 else "b2"} for i in range(8)]
    trainer = trl.SFTTrainer(
        fresh_model("llama"),
        args=trl.SFTConfig(**_settings(tmp_path) | dict(max_length=16, packing=packing)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer,
        peft_config=config(),
    )
    if packing:
        with pytest.raises(ActshiftError, match="packing=False"):
            trainer.train()
        return
    seen = lengths_seen(trainer.model)
    trainer.train()
    assert trainer.state.global_step == 2
    assert sorted(set(torch.cat(seen).tolist())) == [1, 2, 3]


@pytest.mark.slow
def test_dpo_and_grpo_pass_prompt_lengths(tmp_path, word_tokenizer):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = [{"prompt": "a1 a2 a3"[: 2 + 3 * (i % 3)], "chosen": " b1 b2", "rejected": " b3"} for i in range(8)]
    dpo = trl.DPOTrainer(
        fresh_model("llama"),
        args=trl.DPOConfig(**_settings(tmp_path)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer,
        peft_config=config(),
    )
    grpo = trl.GRPOTrainer(
        fresh_model("llama"),
        reward_funcs=lambda completions, **_: [float(len(set(text))) for text in completions],
        args=trl.GRPOConfig(**_settings(tmp_path) | dict(max_completion_length=4, num_generations=2)),
        train_dataset=datasets.Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=word_tokenizer,
        peft_config=config(),
    )
    for trainer in (dpo, grpo):
        seen = lengths_seen(trainer.model)
        trainer.train()
        assert {1, 3} <= set(torch.cat(seen).tolist()) <= {1, 2, 3}


def _settings(folder) -> dict:
    return arguments(folder).to_dict() | dict(save_strategy="no", max_steps=2, per_device_train_batch_size=4)
