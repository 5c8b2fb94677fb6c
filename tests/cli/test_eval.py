"""`actshift eval` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import PROMPTS, Run
from tests.tiny import save_model, word_tokenizer

FEW = ("--max-new-tokens", 4)


@pytest.fixture
def rows(actshift: Run, model: Path, adapter: Path, tmp_path: Path, write_rows) -> Path:
    """Rows with the completions of the steered model, except the last row."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    out = actshift("generate", "--adapter", adapter, "--prompts", prompts, "--json", *FEW).out
    completions = [next(iter(row["adapters"].values())) for row in json.loads(out)]
    completions[-1] += " w0"
    return write_rows([{"prompt": p, "completion": c} for p, c in zip(PROMPTS, completions, strict=True)])


def test_an_adapter_is_evaluated_on_the_base_that_it_names(actshift: Run, adapter: Path, rows: Path) -> None:
    code, out, err = actshift("eval", "--adapter", adapter, "--data", rows, *FEW)
    assert code == 0
    assert out.startswith("accuracy  66.7 %\ncorrect   2 of 3\nseconds   ")
    assert "actshift:" not in err


def test_json_and_a_file_of_predictions_for_limited_rows(
    actshift: Run, model: Path, adapter: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.jsonl"
    options = ("--limit", 2, "--batch-size", 1, "--json", "--out", out, *FEW)
    report = json.loads(actshift("eval", "--model", model, "--adapter", adapter, "--data", rows, *options).out)
    assert (report["accuracy"], report["correct"], report["total"]) == (1.0, 2, 2)
    predictions = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in predictions] == PROMPTS[:2]
    assert all(row["correct"] and row["prediction"] == row["reference"] for row in predictions)


def test_at_strength_0_the_base_answers(actshift: Run, model: Path, adapter: Path, rows: Path) -> None:
    def accuracy(*options: object) -> str:
        return json.loads(actshift("eval", "--data", rows, "--json", *FEW, *options).out)["accuracy"]

    assert accuracy("--model", model) == accuracy("--adapter", adapter, "--strength", 0) == 0


def test_invalid_data_is_refused_before_a_model_is_loaded(refused, write_rows, tmp_path: Path) -> None:
    nowhere = ("--model", tmp_path / "nowhere", "--data")  # loading it would raise another error
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "There is no file" in refused("eval", *nowhere, tmp_path / "missing.jsonl")
    assert "no rows" in refused("eval", *nowhere, empty)
    assert "Row 2" in refused("eval", *nowhere, write_rows([{"prompt": "w1", "completion": "w2"}, {"prompt": "w1"}]))
    rows = write_rows([{"prompt": "w1", "completion": "w2"}])
    assert "is a folder" in refused("eval", *nowhere, rows, "--out", tmp_path)
    assert "There is no folder" in refused("eval", *nowhere, rows, "--out", tmp_path / "a" / "b.jsonl")


def test_rows_of_plain_text_are_refused(refused, model: Path, write_rows) -> None:
    assert "has no prompt" in refused("eval", "--model", model, "--data", write_rows([{"text": "w1 w2"}]))


@pytest.fixture
def task(tmp_path: Path, rows: Path) -> Path:
    """The rows as a user-defined task."""
    path = tmp_path / "task.yaml"
    path.write_text(
        f'data: {{test: {rows.name}}}\nprompt: "{{prompt}}"\ncompletion: " {{completion}}"\nmax_new_tokens: 4\n'
    )
    return path


def test_a_task_defines_its_rows_scorer_and_completion_length(actshift: Run, adapter: Path, task: Path) -> None:
    code, out, err = actshift("eval", "--adapter", adapter, "--task", task, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["correct"], report["total"], report["scorer"]) == (2, 3, "exact")


def test_a_chat_template_is_used_if_there_is_one_unless_switched_off(actshift, refused, tmp_path, task) -> None:
    chat_model = save_model(tmp_path / "chat")
    assert "has no chat template; leave out --chat" in refused("eval", "--model", chat_model, "--task", task, "--chat")
    word_tokenizer(chat_template="w7 {{ messages[0].content }} w8").save_pretrained(chat_model)
    prompts = {}
    for option in ("--chat", "--no-chat", None):
        out = tmp_path / "predictions.jsonl"
        options = ("--task", task, "--limit", 1, "--out", out, *([option] if option else []))
        assert actshift("eval", "--model", chat_model, *options).code == 0
        prompts[option] = json.loads(out.read_text())["prompt"]
    assert prompts["--chat"] == prompts[None] == f"w7 {PROMPTS[0]} w8" and prompts["--no-chat"] == PROMPTS[0]


def test_a_scorer_judges_rows_of_a_file(actshift: Run, model: Path, write_rows) -> None:
    rows = write_rows([{"prompt": "w1", "completion": " so 42"}])
    report = json.loads(actshift("eval", "--model", model, "--data", rows, "--scorer", "number", "--json", *FEW).out)
    assert (report["scorer"], report["total"]) == ("number", 1)


def test_long_prompts_are_refused_or_truncated(actshift: Run, refused, model: Path, write_rows) -> None:
    argv = ("eval", "--model", model, "--data", write_rows([{"prompt": "w1 " * 99, "completion": "w2"}]), *FEW)
    assert "1 of 1 prompts exceed 60 tokens" in refused(*argv)
    code, _, err = actshift(*argv, "--long-prompts", "truncate")
    assert code == 0 and "only the end of each is used" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give either --data with rows or --task"),
        (["--data", "rows.jsonl", "--task", "gsm8k"], "Give either --data with rows or --task"),
        (["--task", "gsm8k", "--data", "rows.jsonl", "--harness", "arc"], "of their own. Leave out --data."),
        (["--task", "gsmk8"], "did you mean 'gsm8k'"),
        (["--task", "gsm8k", "--data-dir", "{}"], "gsm8k"),
        (["--task", "gsm8k", "--scorer", "number"], "has a scorer of its own"),
        (["--data", "rows.jsonl", "--scorer", "numbr"], "did you mean 'number'"),
        (["--data", "rows.jsonl", "--data-dir", "{}"], "--data-dir is the folder of a task's files. Add --task"),
        (["--task", "gsm8k", "--no-chat", "--system", "Be brief."], "--system is a turn of a chat"),
        (["--task", "gsm8k", "--num-fewshot", 2], "need --harness"),
        (["--task", "gsm8k", "--long-prompts", "cut"], "is not one of 'refuse', 'truncate'"),
    ],
)
def test_conflicting_options_are_refused_before_a_model_is_loaded(refused, tmp_path, options, message) -> None:
    options = [str(option).format(tmp_path) for option in options]
    assert message in refused("eval", "--model", "nowhere", *options)


def _trained(actshift: Run, model: Path, rows: Path, out: Path, *how: object) -> Path:
    shared = ("--model", model, "--data", rows, "--out", out, "--max-steps", 2, "--learning-rate", 0.05)
    assert actshift("train", *shared, *how).code == 0
    return out


@pytest.mark.slow
def test_the_result_of_every_training_method_can_be_evaluated(actshift: Run, model: Path, rows: Path, tmp_path) -> None:
    lora = _trained(actshift, model, rows, tmp_path / "lora", "--method", "lora")
    full = _trained(actshift, model, rows, tmp_path / "full", "--method", "full")
    for source in (("--adapter", lora), ("--model", full)):
        code, out, err = actshift("eval", *source, "--data", rows, "--json", *FEW)
        assert code == 0 and json.loads(out)["total"] == 3, err


@pytest.mark.slow
def test_each_half_of_a_joint_adapter_can_act_alone(actshift: Run, model: Path, rows: Path, tmp_path: Path) -> None:
    joint = _trained(actshift, model, rows, tmp_path / "joint", "--method", "joint")

    def completion(*options: object) -> str:
        prompts = ("--prompt", "w1 w2 w3", "--max-new-tokens", 8)
        code, out, err = actshift("generate", "--adapter", joint, *prompts, *options)
        assert code == 0, err
        return out

    base = actshift("generate", "--model", model, "--prompt", "w1 w2 w3", "--max-new-tokens", 8).out
    assert completion("--half", "weights", "--strength", 0) == completion("--half", "weights")
    assert completion("--half", "activations", "--strength", 0) == base
    assert len({base, completion(), completion("--half", "activations"), completion("--half", "weights")}) > 2


def test_a_strength_or_half_that_an_adapter_lacks_is_refused(refused, actshift, model, adapter, rows, tmp_path) -> None:
    lora = _trained(actshift, model, rows, tmp_path / "lora", "--method", "lora")
    assert "no steering adapter" in refused("eval", "--adapter", lora, "--data", rows, "--strength", 0.5)
    assert "no joint adapter" in refused("eval", "--adapter", adapter, "--data", rows, "--half", "weights")
    assert "Unknown half 'weight' (did you mean" in refused(
        "eval", "--adapter", adapter, "--data", rows, "--half", "weight"
    )
