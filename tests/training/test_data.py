from __future__ import annotations

from dataclasses import replace

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.training.data import infer_objective, read_inputs


@pytest.mark.parametrize(
    ("columns", "objective"),
    [
        (("text",), "sft"),
        (("prompt", "completion"), "sft"),  # grpo reads these columns too
        (("messages",), "sft"),
        (("prompt", "answer"), "grpo"),
        (("prompt", "chosen", "rejected"), "dpo"),
        (("text", "label"), "classify"),
        (("text", "text_pair", "label"), "classify"),
        (("tokens", "tags"), "tag"),
        (("text", "text_pair"), "embed"),
    ],
)
def test_objective_follows_from_the_columns(columns, objective):
    assert infer_objective(Dataset.from_dict({name: ["a"] for name in columns})).name == objective


def test_inputs_have_the_objective_head_and_config_of_the_model(settings):
    inputs = read_inputs(replace(settings, eval_share=0.25))
    assert (inputs.objective.name, inputs.head.task_type, inputs.config.model_type) == ("sft", "CAUSAL_LM", "llama")
    assert inputs.eval_rows is not None and (len(inputs.rows), len(inputs.eval_rows)) == (30, 10)


def test_data_and_task_together_raise(settings):
    with pytest.raises(ActshiftError, match="task and data both choose the training rows"):
        read_inputs(replace(settings, task="gsm8k", objective="sft"))
