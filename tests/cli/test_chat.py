from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome, Run

FEW = ("--max-new-tokens", 5)


@pytest.fixture
def chat(actshift: Run, monkeypatch: pytest.MonkeyPatch):
    def say(*lines: str, **options: object) -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return actshift("chat", *FEW, *words)

    return say


def answers(outcome: Outcome) -> list[str]:
    return [line.lstrip("> ").strip() for line in outcome.out.split("\n") if line.strip("> ")]


def test_without_a_template_each_line_is_continued_by_itself(chat, actshift: Run, model: Path) -> None:
    outcome = chat("w1 w2", "w1 w2", model=model)
    alone = actshift("generate", "--model", model, "--prompt", "w1 w2", *FEW).out.strip()
    assert answers(outcome) == [alone, alone]
    assert outcome.code == 0
    assert "continues each line by itself" in outcome.err


def test_the_adapter_can_be_switched_as_one_talks(chat, model: Path, adapter: Path) -> None:
    outcome = chat("w1", "/base", "w1", "/base", "w1", "/strength 0", "w1", "/exit", "w1", adapter=adapter)
    steered, base, steered_again, at_zero = answers(outcome)
    assert steered == steered_again != base == at_zero
    assert [base] == answers(chat("w1", model=model))
    assert outcome.err.endswith(
        "the base model answers\nthe adapter acts at strength 1\nthe adapter acts at strength 0\n"
    )


def test_with_a_template_the_model_sees_the_conversation(chat, actshift: Run, model: Path, tmp_path: Path) -> None:
    talker = Path(shutil.copytree(model, tmp_path / "talker"))
    config = json.loads((talker / "tokenizer_config.json").read_text())
    template = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    (talker / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    outcome = chat("w1", "w2", model=talker)
    first, second = answers(outcome)
    assert actshift("generate", "--model", model, "--prompt", f"w1 {first} w2 ", *FEW).out.strip() == second
    assert "no chat template" not in outcome.err


def test_a_wrong_command_is_explained_and_the_chat_goes_on(chat, model: Path, adapter: Path) -> None:
    outcome = chat("/bsae", "/strength much", "w1", adapter=adapter)
    assert "actshift: there is no /bsae (did you mean '/base'?)" in outcome.err
    assert "actshift: /strength takes a number" in outcome.err
    assert (outcome.code, len(answers(outcome))) == (0, 1)
    assert "no adapter to switch off" in chat("/base", model=model).err


def test_ctrl_c_ends_politely(actshift: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    outcome = actshift("chat", "--model", model)
    assert outcome.code == 0
    assert "interrupted" not in outcome.err
