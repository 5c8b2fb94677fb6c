from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel

from actshift import ActshiftError
from actshift.data import load_rows
from actshift.data.encode import encode
from actshift.evaluation import generate_completions
from actshift.loading import load_model
from actshift.model_head import CAUSAL
from actshift.training import TrainSettings, plan, train
from actshift.training.objectives import OBJECTIVES
from tests.characters import char_tokenizer, write_rows
from tests.contract.cases import randomise
from tests.training.helpers import Killed, kill_at, weights
from tests.training.objectives.untrained import PREFERENCES, log_probabilities, trainer_before_training
from tests.zoo import ARCHITECTURES

DPO = OBJECTIVES["dpo"]
SETTINGS = TrainSettings(objective="dpo", max_steps=20, gradient_accumulation=1, learning_rate=3e-2)


def encoded(rows=PREFERENCES, **changes):
    return DPO.encode(Dataset.from_list(rows), char_tokenizer(), replace(SETTINGS, **changes), CAUSAL)


def test_completions_are_encoded_as_in_supervised_training():
    first, tokenizer = encoded().examples[0], char_tokenizer()
    for name in ("chosen", "rejected"):
        row = {"prompt": PREFERENCES[0]["prompt"], "completion": PREFERENCES[0][name]}
        assert (
            first["prompt_ids"] + first[f"{name}_ids"]
            == encode(Dataset.from_list([row]), tokenizer, 64).examples[0]["input_ids"]
        )
    assert tokenizer.decode(first["chosen_ids"]) == "0</s>"


def test_long_rows_are_left_out():
    rows = [*PREFERENCES, {"prompt": "a" * 20, "chosen": "b", "rejected": "c"}]
    with pytest.warns(UserWarning, match="1 of 17 rows exceed max_length 15 and are left out"):
        kept = encoded(rows, max_length=15)
    assert (kept.left_out, len(kept.examples), kept.longest) == (1, len(PREFERENCES), 5 + 8)


@pytest.mark.parametrize(
    "rows, changes, message",
    [
        (PREFERENCES, {"max_length": 3}, "Every row is longer than max_length 3; the shortest has 13 tokens"),
        (PREFERENCES, {"beta": 0.0}, "beta 0 makes the loss of dpo constant"),
        (PREFERENCES, {"init": "gradient"}, "init gradient needs completions as in sft; leave it out"),
        (PREFERENCES, {"group_by_length": True}, "group_by_length True needs"),
        ([{"prompt": "a", "completion": "b"}], {}, "dpo needs rows of prompt, chosen and rejected"),
        (
            [{"prompt": "a" * 60, "chosen": "b" * 9, "rejected": "c"}],
            {},
            "1 of 1 rows exceed the model's context of 64 tokens with their completions, such as row 1, with 71",
        ),
    ],
)
def test_unusable_preferences_raise(rows, changes, message):
    with pytest.raises(ActshiftError, match=message):
        encoded(rows, **changes)


def test_chats_are_rendered_with_the_template(tmp_path):
    def chat(answer, question="1+1="):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = load_rows(
        str(write_rows(tmp_path / "chats.jsonl", [{"chosen": chat("2"), "rejected": chat("ab")}])), kinds=DPO.kinds
    )
    tokenizer = char_tokenizer()
    with pytest.raises(ActshiftError, match="has no chat template"):
        DPO.encode(rows, tokenizer, SETTINGS, CAUSAL)
    tokenizer.chat_template = "<s>{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    [example] = DPO.encode(rows, tokenizer, SETTINGS, CAUSAL).examples
    assert {name: tokenizer.decode(ids) for name, ids in example.items()} == {
        "prompt_ids": "<s>1+1=", "chosen_ids": "2</s>", "rejected_ids": "ab</s>"
    }  # fmt: skip
    other = Dataset.from_list([{"chosen": chat("2"), "rejected": chat("2", "1+2=")}])
    with pytest.raises(ActshiftError, match="Row 1 has two chats that differ before their last turn"):
        DPO.encode(other, tokenizer, SETTINGS, CAUSAL)
    write_rows(tmp_path / "odd.jsonl", [{"chosen": chat("2"), "rejected": chat("2")[:1]}])
    with pytest.raises(ActshiftError, match=r"Row 1 of .* has rejected that do not end with an assistant's turn"):
        load_rows(str(tmp_path / "odd.jsonl"), kinds=DPO.kinds)


@pytest.mark.parametrize("method", ["steering", "lora", "joint"])
def test_reference_is_the_model_without_its_adapter(tmp_path, method):
    trainer = trainer_before_training(tmp_path, PREFERENCES, replace(SETTINGS, method=method))
    model, base = trainer.model, ARCHITECTURES["llama"]()
    assert trainer.ref_model is None and list(model.peft_config) == ["default"]
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in base.parameters()) + adapter
    randomise(model)
    batch = next(iter(trainer.get_train_dataloader()))
    reference = torch.cat(trainer.compute_ref_log_probs(model, batch))
    completion = batch["completion_mask"][:, 1:]
    expected = (log_probabilities(base.eval(), batch["input_ids"], batch["attention_mask"]) * completion).sum(-1)
    torch.testing.assert_close(reference, expected)
    own = (log_probabilities(model.eval(), batch["input_ids"], batch["attention_mask"]) * completion).sum(-1)
    assert not torch.allclose(own, expected, atol=0.1)


@pytest.fixture
def settings(model_folder, tmp_path) -> TrainSettings:
    rows = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    return replace(SETTINGS, model=str(model_folder), data=str(rows), out=str(tmp_path / "run"), save_steps=5)


def test_plan_writes_nothing(settings):
    foreseen = plan(settings)
    assert (foreseen.rows, foreseen.longest, foreseen.steps) == (len(PREFERENCES), 13, 20)
    assert not Path(settings.out).exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["steering", "lora", "joint", "full"])
def test_margin_grows_and_the_result_loads(settings, method):
    rate = {"steering": 3e-2, "lora": 3e-3, "joint": 3e-3, "full": 1e-3}[method]
    result = train(replace(settings, method=method, learning_rate=rate, eval_share=0.25))
    figures = result.fit.figures
    assert figures["margin_start"] == pytest.approx(0, abs=1e-4) and figures["margin"] > 0.3
    assert figures["eval_margin"] > 0.1 and figures["eval_preference_accuracy"] == 1
    assert "| margin |" in Path(settings.out, "README.md").read_text()
    source = settings.out if method == "full" else str(settings.model)
    model, tokenizer = load_model(source, dtype="float32")
    if method != "full":
        model = PeftModel.from_pretrained(model, settings.out)
    [completion] = generate_completions(model, tokenizer, ["1+1="], 4)
    assert isinstance(completion, str)


@pytest.mark.slow
def test_resume_is_bit_identical(settings, monkeypatch):
    whole = replace(settings, out=f"{settings.out}-whole")
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(12, patch, "on_step_end")
        train(settings)
    train(settings, resume=True)
    assert weights(settings.out) == weights(str(whole.out))
