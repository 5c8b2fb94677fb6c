"""`actshift chat` as a user types it."""

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
    def run(*lines: str, **options: object) -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return actshift("chat", *FEW, *words)

    return run


def answers(outcome: Outcome) -> list[str]:
    return [line.lstrip("> ").strip() for line in outcome.out.split("\n") if line.strip("> ")]


def test_without_a_template_each_line_is_continued_separately(chat, actshift: Run, model: Path) -> None:
    outcome = chat("w1 w2", "w1 w2", model=model)
    alone = actshift("generate", "--model", model, "--prompt", "w1 w2", *FEW).out.strip()
    assert answers(outcome) == [alone, alone]
    assert outcome.code == 0
    assert "continues each line by itself" in outcome.err


def test_the_adapter_can_be_switched_during_the_chat(chat, model: Path, adapter: Path) -> None:
    outcome = chat("w1", "/base", "w1", "/base", "w1", "/strength 0", "w1", "/quit", "w1", adapter=adapter)
    steered, base, steered_again, at_zero = answers(outcome)
    assert steered == steered_again != base == at_zero
    assert [base] == answers(chat("w1", model=model))
    assert outcome.err.endswith(
        "The base model answers.\nThe adapter acts at strength 1.\nThe adapter acts at strength 0.\n"
    )


def test_with_a_template_the_model_sees_the_conversation(chat, actshift: Run, model: Path, tmp_path: Path) -> None:
    chat_model = Path(shutil.copytree(model, tmp_path / "chat_model"))
    config = json.loads((chat_model / "tokenizer_config.json").read_text())
    template = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    (chat_model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    outcome = chat("w1", "w2", model=chat_model)
    first, second = answers(outcome)
    assert actshift("generate", "--model", model, "--prompt", f"w1 {first} w2 ", *FEW).out.strip() == second
    assert "no chat template" not in outcome.err


def test_an_unknown_command_is_explained_and_the_chat_continues(chat, model: Path, adapter: Path) -> None:
    outcome = chat("/bsae", "/strength much", "/help", "w1", "/exit", "w1", adapter=adapter)
    assert "actshift: There is no command /bsae (did you mean '/base'?)" in outcome.err
    assert "actshift: /strength needs a number" in outcome.err
    assert outcome.err.count("/quit or /exit ends the chat") == 3  # at the start, after the typing error and by /help
    assert (outcome.code, len(answers(outcome))) == (0, 1)
    assert "There is no adapter to switch off" in chat("/base", model=model).err


def test_ctrl_c_ends_the_chat_without_an_error(actshift: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    outcome = actshift("chat", "--model", model)
    assert outcome.code == 0
    assert "nterrupted" not in outcome.err
