"""Help texts name every value that the registries allow, and flags follow the fields of a settings class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import pytest
import typer

from actshift.analysis.contrast.contrast import METHODS
from actshift.analysis.contrast.report import TOKENS
from actshift.cli.main import load_verb
from actshift.cli.options import LongPrompts, flags_of
from actshift.demo import METHODS as DEMO_METHODS
from actshift.evaluation.prompts import LONG_PROMPTS
from actshift.tasks.scorers import SCORERS
from actshift.training.setting_fields import setting


@pytest.mark.parametrize(
    ("verb", "option", "values"),
    [
        ("demo", "methods", DEMO_METHODS),
        ("eval", "scorer", SCORERS),
        ("vector", "method", METHODS),
        ("vector", "token", TOKENS),
        ("generate", "half", ("both", "weights", "activations")),
    ],
)
def test_help_names_every_allowed_value(verb: str, option: str, values: Any) -> None:
    [parameter] = [parameter for parameter in load_verb(verb).params if parameter.name == option]
    assert all(value in parameter.help for value in values), parameter.help


def test_long_prompts_takes_the_choices_of_the_library() -> None:
    literal, *_ = get_args(LongPrompts)
    assert get_args(literal) == LONG_PROMPTS


def test_flags_follow_the_fields_of_a_settings_class() -> None:
    @dataclass
    class Settings:
        rank: int = setting("Panel", 8, "Rank.")
        layers: tuple[str, ...] | None = setting("Panel", None, "Blocks.")
        bias: bool = setting("Panel", False, "Bias.")

    @flags_of(Settings)
    def verb(*, config: str | None = None, **flags: Any) -> None:
        seen.update(flags)

    seen: dict[str, Any] = {}
    app = typer.Typer()
    app.command()(verb)
    app(["--rank", "3", "--layers", "0", "--layers", "4:8"], standalone_mode=False)
    assert (seen["rank"], list(seen["layers"]), seen["bias"]) == (3, ["0", "4:8"], None)
    command = typer.main.get_command(app)
    assert [parameter.help for parameter in command.params][:3] == ["Rank. (default: 8)", "Blocks.", "Bias."]
