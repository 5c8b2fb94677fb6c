"""The verbs, their flags and help, and what listing them costs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from actshift import __version__
from actshift.cli.main import VERBS, app, load_verb, main
from tests.cli.conftest import Run

FLAGS = json.loads((Path(__file__).parent / "flags.json").read_text())
HELP = "import sys; from actshift.cli.main import main; main({}); "
HEAVY = "torch transformers peft datasets trl numpy".split()


def test_every_verb_has_the_flags_that_users_know() -> None:
    """A flag that is added belongs in flags.json; a flag that is lost breaks a user's script."""
    flags = {
        name: " ".join(
            sorted(flag for option in load_verb(name).params for flag in (*option.opts, *option.secondary_opts))
        )
        for name in VERBS
    }
    assert flags == FLAGS


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_shows_the_first_line_of_a_verbs_own_help(verb: str) -> None:
    first, _, _ = (load_verb(verb).help or "").partition("\n\n")
    assert VERBS[verb][1] == first


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, actshift: Run) -> None:
    code, out, err = actshift(verb, "--help")
    assert (code, err) == (0, "")
    assert f"actshift {verb}" in out


@pytest.mark.parametrize("verb", VERBS)
def test_a_flag_with_one_value_is_refused_if_it_is_repeated(verb: str, refused: Callable[..., str]) -> None:
    for option in load_verb(verb).params:
        if option.param_type_name == "option" and not option.multiple and option.name != "help":
            words = [option.opts[0]] if option.is_flag else [option.opts[0], "1"]
            assert f"{option.opts[0]} is given 2 times; give it once." in refused(verb, *words, *words)


def test_an_argument_without_use_is_named(refused: Callable[..., str]) -> None:
    assert "There is no use for the extra argument(s) (foo)" in refused("train", "foo")


def test_help_is_quick_and_imports_no_verb() -> None:
    verbs = [f"actshift.cli.{verb}" for verb in VERBS]
    start = time.perf_counter()
    run = _run(HELP.format(["--help"]) + f"sys.exit(' '.join(name for name in {HEAVY + verbs} if name in sys.modules))")
    seconds = time.perf_counter() - start
    assert (run.stderr.strip(), run.returncode) == ("", 1)  # sys.exit with an empty text
    assert all(verb in run.stdout for verb in VERBS)
    assert seconds < 2  # 0.2 s on a free core


def test_the_options_of_every_verb_import_nothing_heavy() -> None:
    load = "import sys; from actshift.cli.main import VERBS, load_verb; [load_verb(verb) for verb in VERBS]; "
    assert _run(load + f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules))").stderr.strip() == ""


@pytest.mark.slow
def test_help_costs_at_most_two_and_a_half_times_importing_typer() -> None:
    """It takes 1.6 times the CPU time of `import typer`, which leaves room for noise."""
    assert _cpu_seconds(HELP.format(["--help"])) < 2.5 * _cpu_seconds("import typer")


def test_help_lists_options_and_every_verb_in_full(actshift: Run) -> None:
    _, out, _ = actshift("--help")
    text = " ".join(out.replace("│", " ").split())
    assert "Usage: actshift [OPTIONS] COMMAND [ARGS]..." in text
    assert "--version Print the version and exit. --help Show this message and exit." in text
    assert all(f"{name} {line}" in text for name, (_, line) in VERBS.items())


def test_version_and_bare_call(actshift: Run) -> None:
    assert actshift("--version") == (0, f"actshift {__version__}\n", "")
    code, out, err = actshift()
    assert (code, err) == (0, "")
    assert "inspect" in out


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["evall"], ["'evall'. Did you mean 'eval'? See `actshift --help`."]),
        (["--versoin"], ["--versoin. Did you mean '--version'? See `actshift --help`."]),
        (["eval", "--dta", "x"], ["--dta. Did you mean '--data'? See `actshift eval --help`."]),
        (["extract"], ["Missing option '--finetuned'. See `actshift extract --help`."]),
        (["inspect"], ["Missing argument 'ADAPTER_OR_MODEL'. See `actshift inspect --help`."]),
        (["inspect", "a", "b"], ["no use for the extra argument", "b", "See `actshift inspect --help`."]),
        (["generate", "--strength", "high"], ["'--strength'", "valid", "See `actshift generate --help`."]),
        (["eval", "--data", "x", "--limit", "0"], ["'--limit'", "1", "See `actshift eval --help`."]),
    ],
)
def test_a_mistyped_command_line_fails_with_one_line(argv: list[str], parts: list[str], refused) -> None:
    line = refused(*argv)
    assert all(part in line for part in parts), line


def test_the_entry_point_is_installed() -> None:
    from importlib.metadata import entry_points

    [script] = entry_points(group="console_scripts", name="actshift")
    assert script.load() is main
    assert app.info.name == "actshift"


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def _cpu_seconds(code: str) -> float:
    """Return the user and system time of a Python process that runs the code, the median of five."""
    seconds = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(seconds[1:])
