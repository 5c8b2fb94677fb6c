"""TRL's trainer and positions: prompts are where its labels are masked, and packing is refused."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, SteeringConfig
from actshift.sites import Positions
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model
from tests.integration.test_trainers import arguments


@pytest.mark.parametrize("packing", [False, True])
def test_trl_derives_prompts_from_labels(tmp_path, word_tokenizer, packing):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = [{"prompt": "a1 " * (1 + i % 3), "completion": f"b{i % 5} b1" if i % 2 else "b2"} for i in range(8)]
    trainer = trl.SFTTrainer(
        fresh_model("llama"),
        args=trl.SFTConfig(
            **arguments(tmp_path).to_dict()
            | dict(max_length=16, save_strategy="no", max_steps=2, packing=packing, per_device_train_batch_size=4)
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=word_tokenizer,
        peft_config=SteeringConfig(rank=4, positions=Positions.ends(first=2, last=1), task_type="CAUSAL_LM"),
    )
    if packing:
        with pytest.raises(ActshiftError, match="packing=False"):
            trainer.train()
        return
    seen = []
    layer = next(iter(steering_layers(trainer.model).values()))
    layer.register_forward_hook(lambda module, args, output: seen.append(module.prompts.tokens.length.flatten()))
    trainer.train()
    assert trainer.state.global_step == 2
    assert sorted(set(torch.cat(seen).tolist())) == [1, 2, 3]
