"""lm-eval-harness on user-defined tasks, offline: the adapter acts in generation and in multiple choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from actshift import SteeringConfig, Vector, attach
from actshift.cli.main import main
from actshift.data import token_ids
from actshift.demo import BASE_DIR, load_base
from actshift.errors import ActshiftError
from actshift.evaluation.harness import _harness_model, run_harness
from tests.characters import char_tokenizer
from tests.zoo import ARCHITECTURES

ROWS = [
    {"question": "what is the largest of three and four ?", "choices": ["four .", "two ."], "answer": 0},
    {"question": "what is the smallest of nine and four ?", "choices": ["nine .", "four ."], "answer": 1},
]
WRITES = """\
task: tiny_writes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}} answer :"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{max_gen_toks: 3, until: ["\\n"], do_sample: false}}
metric_list: [{{metric: exact_match, ignore_case: true}}]
"""
CHOOSES = """\
task: tiny_chooses
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}} answer :"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("writes", WRITES), ("chooses", CHOOSES)):
        (folder / f"{name}.yaml").write_text(text.format(rows=rows))
    return folder


def broken(model: Any) -> Any:
    """Return the model with a random shift so large that it answers nothing correctly."""
    steered = attach(model, SteeringConfig(adapter=Vector(), task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in steered.named_parameters():
            if "lora_steer" in name:
                parameter.normal_(std=30)
    return steered


@pytest.mark.slow
def test_the_adapter_acts_in_both_kinds_of_task_and_the_results_are_written(tasks: Path, tmp_path: Path) -> None:
    names, out, run = "tiny_writes,tiny_chooses", tmp_path / "results.json", tmp_path / "run"
    broken(load_base()[0]).save_pretrained(str(run))
    scores = {}
    for name, options in (("base", []), ("adapter", ["--adapter", str(run)])):
        argv = ["eval", "--model", str(BASE_DIR), *options, "--harness", names, "--include-path", str(tasks)]
        assert main([*argv, "--out", str(out)]) == 0
        results = json.loads(out.read_text())["results"]
        scores[name] = (results["tiny_writes"]["exact_match,none"], results["tiny_chooses"]["acc,none"])
    assert scores["base"] == (1.0, 1.0) and scores["adapter"][0] == 0.0
    model = broken(load_base()[0])
    with model.disable_adapter():  # the model object itself is scored
        report = run_harness(model, load_base()[1], ["tiny_writes"], include_path=tasks)
    assert [value for *_, value, _ in report.scores()] == [1.0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_writes", "tiny_chooses"])
def test_a_prompt_beyond_the_context_is_refused_or_truncated_with_a_warning(tasks: Path, name: str) -> None:
    model, tokenizer = load_base()
    tokenizer.model_max_length = 8
    message = "[24] of [24] prompts of the harness exceed [0-9]+ tokens, in a context of 8"
    with pytest.raises(ActshiftError, match=message):
        run_harness(model, tokenizer, [name], include_path=tasks)
    with pytest.warns(UserWarning, match=f"{message}; only the end of each is used"):
        run_harness(model, tokenizer, [name], include_path=tasks, long_prompts="truncate")


@pytest.mark.slow
def test_invalid_options_are_refused_before_a_model_is_loaded(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error_of(*options: object) -> str:
        capsys.readouterr()
        assert main(["eval", "--model", "nowhere", "--include-path", str(tasks), *map(str, options)]) == 2
        return capsys.readouterr().err

    assert "did you mean 'tiny_writes'" in error_of("--harness", "tiny_chooses,tiny_write")
    assert "Leave out --scorer" in error_of("--harness", "tiny_writes", "--scorer", "number")
    assert "No task of the harness is named" in error_of("--harness", ",")
    assert "nowhere" in error_of("--harness", "tiny_writes, tiny_chooses")


@pytest.mark.slow
def test_prompts_are_rendered_by_the_chat_template(tasks: Path) -> None:
    model, tokenizer = load_base()
    tokenizer.chat_template = None
    with pytest.raises(ActshiftError, match="has no chat template; leave out --chat"):
        run_harness(model, tokenizer, ["tiny_writes"], include_path=tasks, chat=True)
    scores = []
    for template in ("{{ messages[0].content }}", "what is the"):  # the same as plain text, and another prompt
        tokenizer.chat_template = template
        report = run_harness(model, tokenizer, ["tiny_writes"], include_path=tasks, chat=True)
        scores += [value for *_, value, _ in report.scores()]
    assert scores == [1.0, 0.0]


@pytest.mark.slow
def test_an_unknown_task_is_refused_with_the_nearest_name(tasks: Path) -> None:
    model, tokenizer = load_base()
    with pytest.raises(ActshiftError, match="did you mean 'tiny_writes'"):
        run_harness(model, tokenizer, ["tiny_write"], include_path=tasks)
    with pytest.raises(ActshiftError, match="There is no folder"):
        run_harness(model, tokenizer, ["tiny_writes"], include_path=tasks / "nowhere")


@pytest.mark.slow
def test_a_rendered_prompt_has_the_token_ids_of_training() -> None:
    tokenizer, text = char_tokenizer(), "<u>1+1<a>"
    rendered = {"chat_template_args": {}, "add_bos_token": False}
    for prompt in (text, f"<s>{text}"):  # a chat template may write the start token, or leave it out
        model = _harness_model(ARCHITECTURES["llama"](), tokenizer, 1, "refuse", **rendered)
        [expected] = token_ids(tokenizer, [prompt], add_special_tokens=False)
        assert model.tok_encode(prompt) == expected == model.tok_batch_encode([prompt])[0][0].tolist()
