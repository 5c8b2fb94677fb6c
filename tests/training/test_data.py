from __future__ import annotations

from dataclasses import replace

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.training.data import infer_objective, read_inputs
from tests.characters import sums, write_rows


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


def test_limited_rows_are_the_first_of_each_split_and_the_others_are_not_read(settings, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", sums(8))
    rows.write_text(rows.read_text() + "not JSON")
    limited = replace(settings, data=str(rows), limit=8)
    assert len(read_inputs(limited).rows) == 8
    with pytest.raises(ActshiftError, match="Line 9"):
        read_inputs(replace(limited, limit=None))
    both = read_inputs(replace(limited, eval_data=settings.data, limit=3))
    assert (len(both.rows), len(both.eval_rows or ())) == (3, 3)
    task = tmp_path / "task.yaml"
    task.write_text("{data: rows.jsonl, prompt: '{prompt}', completion: '{completion}', splits: {train: 1.0}}")
    assert len(read_inputs(replace(settings, data=None, task=str(task), eval_share=0.5, limit=4)).rows) == 2


def test_data_and_task_together_raise(settings):
    with pytest.raises(ActshiftError, match="task and data both choose the training rows"):
        read_inputs(replace(settings, task="gsm8k", objective="sft"))
