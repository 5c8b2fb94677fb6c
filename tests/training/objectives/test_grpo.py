from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel

from actshift import ActshiftError
from actshift.evaluation import generate_completions
from actshift.loading import load_model
from actshift.model_head import CAUSAL
from actshift.training import TrainSettings, plan, train
from actshift.training.objectives import OBJECTIVES
from tests.characters import char_tokenizer, write_rows
from tests.contract.cases import randomise
from tests.training.helpers import Killed, kill_at, weights
from tests.training.objectives.untrained import log_probabilities, trainer_before_training
from tests.zoo import ARCHITECTURES

GRPO = OBJECTIVES["grpo"]
ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]
SETTINGS = TrainSettings(
    objective="grpo",
    reward=("right_answer",),
    generations=4,
    max_new_tokens=3,
    max_steps=6,
    gradient_accumulation=1,
    learning_rate=2e-2,
)
CALLS = """
def digits(completions, **columns):
    return [sum(character.isdigit() for character in text) / 3 for text in completions]

calls = 0

def breaks(completions, prompts, answer, **columns):
    global calls
    calls += 1
    if calls == 6:
        raise ZeroDivisionError("division by zero")
    return [0.0] * len(completions)
"""


def encoded(rows=ROWS, **changes) -> Any:
    return GRPO.encode(Dataset.from_list(rows), char_tokenizer(), replace(SETTINGS, **changes), CAUSAL)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """The name of a module of rewards in the working directory, another for each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"rewards_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(CALLS)
    return name


def test_encoded_rows_keep_the_columns_of_rewards():
    assert encoded().examples[1] == {"prompt": "0+1=", "answer": "1"}
    assert encoded().longest == 5 + 3
    rows = [{"prompt": "1+1=", "completion": " so 2"}, {"prompt": "1+2=", "completion": "3", "answer": "3"}]
    assert encoded(rows[:1], scorer="number").examples == [{"prompt": "1+1=", "reference": " so 2", "answer": "2"}]


@pytest.mark.parametrize(
    "rows, changes, message",
    [
        (ROWS, {"reward": None}, "grpo needs a reward; give --reward right_answer, right_form or module:function"),
        (ROWS, {"reward": ("right_answr",)}, "did you mean 'right_answer'"),
        (ROWS, {"scorer": "numbr"}, "There is no scorer 'numbr'.*did you mean 'number'"),
        (
            ROWS,
            {"batch_size": 6},
            "× gradient_accumulation 1 = 6 completions, which is not a multiple of 4 generations",
        ),
        (ROWS, {"method": "full", "beta": 0.1}, "beta needs a second copy of the model as the reference"),
        (ROWS, {"max_length": 3}, "Every prompt is longer than max_length 3; the shortest has 5 tokens. Shorten it"),
        ([{"prompt": "1+1="}], {}, "Row 1 has no answer, which right_answer needs; add a column answer"),
        (
            [*ROWS, {"prompt": "a" * 62, "answer": "b"}],
            {},
            "1 of 17 rows exceed the model's context of 64 tokens with 3 new tokens, such as row 17, with 66",
        ),
    ],
)
def test_unusable_rows_or_settings_raise(rows, changes, message):
    with pytest.raises(ActshiftError, match=message):
        encoded(rows, **changes)


def test_reward_that_fails_on_the_first_rows_raises(mine):
    assert encoded(reward=(f"{mine}:digits",)).left_out == 0
    with pytest.raises(ActshiftError, match=r"breaks raised TypeError .*missing.*'answer'"):
        encoded([{"prompt": "1+1="}], reward=(f"{mine}:breaks",))


def test_reward_settings_without_effect_raise():
    with pytest.raises(ActshiftError, match="reward has no effect when objective is None"):
        TrainSettings(reward=("right_answer",))
    with pytest.raises(ActshiftError, match="generations has no effect when objective is dpo"):
        TrainSettings(objective="dpo", generations=4)
    assert TrainSettings(objective="grpo").rate == pytest.approx(TrainSettings().rate / 20)


@pytest.mark.parametrize("method", ["steering", "lora", "joint"])
def test_reference_is_the_model_without_its_adapter(tmp_path, method):
    trainer = trainer_before_training(tmp_path, ROWS, replace(SETTINGS, method=method, beta=0.1))
    model, base = trainer.model, ARCHITECTURES["llama"]().eval()
    assert trainer.ref_model is None and list(model.peft_config) == ["default"]
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in base.parameters()) + adapter
    randomise(model)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    ids, mask = (torch.cat([batch[f"prompt_{part}"], batch[f"completion_{part}"]], 1) for part in ("ids", "mask"))
    counted = batch["completion_mask"].bool()
    expected = log_probabilities(base, ids, mask)[:, -counted.shape[1] :]
    torch.testing.assert_close(batch["ref_per_token_logps"][counted], expected[counted])
    own = log_probabilities(model.eval(), ids, mask)[:, -counted.shape[1] :]
    assert not torch.allclose(own[counted], expected[counted], atol=0.1)


def test_prompts_are_encoded_as_in_generation(tmp_path):
    trainer = trainer_before_training(tmp_path, ROWS, SETTINGS)
    ids, *_ = trainer._tokenize_prompts(["<s>1+1="])  # a start token that a text brings along counts once
    assert ids == [char_tokenizer()("1+1=")["input_ids"]]


def test_chats_are_rendered_and_need_a_template():
    chats = [{"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}], "answer": "2"}]
    tokenizer = char_tokenizer()
    with pytest.raises(ActshiftError, match="has no chat template to render messages with"):
        GRPO.encode(Dataset.from_list(chats), tokenizer, SETTINGS, CAUSAL)
    tokenizer.chat_template = "<s>{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    rows: Any = GRPO.encode(Dataset.from_list(chats), tokenizer, SETTINGS, CAUSAL)
    assert rows.examples == [{"prompt": "<s>1+1=", "answer": "2", "reference": "2"}]
    assert GRPO.model_inputs(rows, tokenizer) == [{"input_ids": char_tokenizer()("1+1=")["input_ids"]}]


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last", "ends"])
def test_sampling_and_training_give_the_same_logits(tmp_path, positions):
    trainer = trainer_before_training(tmp_path, ROWS, replace(SETTINGS, positions=positions))
    model = trainer.model
    randomise(model)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    prompts, mask = batch["prompt_ids"], batch["prompt_mask"]
    sampled = model.eval().generate(
        input_ids=prompts, attention_mask=mask, min_new_tokens=3, max_new_tokens=3, do_sample=False,
        return_dict_in_generate=True, output_logits=True, pad_token_id=0,
    )  # fmt: skip
    sampled_ids, logits = sampled.sequences[:, -3:], torch.stack(sampled.logits, 1)
    whole = torch.cat([mask, torch.ones_like(sampled_ids)], 1)
    trained, *_ = trainer._get_per_token_logps_and_entropies(model.train(), sampled.sequences, whole, 3)
    torch.testing.assert_close(trained, logits.log_softmax(-1).gather(-1, sampled_ids[..., None])[..., 0])


@pytest.fixture
def settings(model_folder, tmp_path) -> TrainSettings:
    rows = write_rows(tmp_path / "sums.jsonl", ROWS)
    return replace(SETTINGS, model=str(model_folder), data=str(rows), out=str(tmp_path / "run"), save_steps=2)


def test_plan_calls_the_rewards_and_writes_nothing(settings):
    foreseen = plan(replace(settings, max_steps=None, epochs=1.0))
    assert (foreseen.rows, foreseen.longest, foreseen.steps) == (16, 8, 16 * 4 / 8)
    assert not Path(settings.out).exists()
    with pytest.raises(ActshiftError, match="no module 'nowhere'"):
        plan(replace(settings, reward=("nowhere:f",)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["steering", "lora", "joint", "full"])
def test_reward_rises_and_the_result_loads(settings, mine, method):
    rate = {"steering": 2e-2, "lora": 1e-2, "joint": 1e-2, "full": 2e-3}[method]
    settings = replace(settings, method=method, learning_rate=rate, reward=(f"{mine}:digits",), max_steps=30)
    result = train(replace(settings, batch_size=32, eval_share=0.25, beta=None if method == "full" else 0.001))
    figures = result.fit.figures
    assert figures["reward"] > figures["reward_start"] + 0.2
    assert figures["eval_reward"] > figures["reward_start"]
    model, tokenizer = load_model(settings.out if method == "full" else str(settings.model), dtype="float32")
    if method != "full":
        model = PeftModel.from_pretrained(model, settings.out)
    [completion] = generate_completions(model, tokenizer, ["1+1="], 3)
    assert any(character.isdigit() for character in completion)


@pytest.mark.slow
def test_run_resumes_after_an_error_in_a_reward(settings, mine):
    settings = replace(settings, reward=(f"{mine}:breaks",))
    with pytest.raises(ActshiftError, match=r"breaks raised ZeroDivisionError \(division by zero\) at step 5; fix it"):
        train(settings)  # its first call is the one that tries it
    assert Path(settings.out, "checkpoints", "checkpoint-4").is_dir()
    assert train(settings, resume=True).fit.steps == 6


@pytest.mark.slow
def test_resume_is_bit_identical(settings, monkeypatch):
    whole = replace(settings, out=f"{settings.out}-whole")
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(3, patch, "on_step_end")
        train(settings)
    train(settings, resume=True)
    assert weights(settings.out) == weights(str(whole.out))
