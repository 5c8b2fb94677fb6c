from __future__ import annotations

import pytest

from actshift import ActshiftError
from actshift.training.rewards import custom_reward

MINE = """
THRESHOLD = 3

def brief(completions, **columns):
    return [float(len(text) < THRESHOLD) for text in completions]

def narrow(completions):
    return [0.0] * len(completions)

async def later(completions, **columns):
    return [0.0] * len(completions)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    return write


def test_a_function_of_a_file_in_the_working_directory(here):
    here("mine_a", MINE)
    reward = custom_reward("mine_a:brief")
    assert reward.name == "mine_a:brief" and reward(completions=["a", "abcd"], prompts=["", ""]) == [1.0, 0.0]


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere:f", "There is no module 'nowhere' for the reward, neither in .* nor installed"),
        ("mine_b:brif", "mine_b:brif: brif does not exist .did you mean 'brief'.. in mine_b"),
        ("mine_b:", "a function without a name"),
        ("mine_b:THRESHOLD", "THRESHOLD is not a function in mine_b"),
        ("mine_b:narrow", r"cannot be called as TRL calls it; define it as narrow\(completions, \*\*columns\)"),
        ("mine_b:later", "cannot be called as TRL calls it"),
        ("broken:f", r"The module 'broken' of the reward cannot be imported: ZeroDivisionError \(division by zero\)"),
        ("lacking:f", "The module 'lacking' of the reward cannot be imported: No module named 'absent'"),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(here, name, message):
    here("mine_b", MINE)
    here("broken", "1 / 0")
    here("lacking", "import absent")
    with pytest.raises(ActshiftError, match=message):
        custom_reward(name)
