"""Regular expressions in configs: check in a bounded time that they are valid, and fast on the names of a model.

PEFT matches them against every module's name. Python cannot interrupt a match, and patterns such as `(a+)+$` take
exponential time. A pattern with quantifiers, groups or alternatives is therefore tried in a separate process first.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from actshift.errors import ActshiftError, show

MAX_LENGTH = 20_000  # characters of one pattern, which `fields` checks
SECONDS = 2.0  # for all patterns of a config on all names; usual ones take milliseconds
FIELDS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
PLAIN = re.compile(r"[\w.^$ /-]*")  # such patterns take linear time

_TRIAL = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for number, (pattern, form) in enumerate(patterns):
    try:
        re.compile(pattern)
        match = re.compile(form.replace("{}", pattern)).fullmatch
    except Exception as error:
        print(json.dumps([number, str(error) or type(error).__name__]))
        break
    for name in names:
        match(name)
"""


def check_patterns(values: Mapping[str, Any], fields: Iterable[str] = FIELDS, names: Iterable[str] = ()) -> None:
    """Check the regular expressions in a config's fields: that they compile, and that matching all names is fast.

    Raises:
        ActshiftError: a pattern is invalid, or matching takes over `SECONDS`.

    >>> check_patterns({"target_modules": "(q|v"})
    Traceback (most recent call last):
    actshift.errors.ActshiftError: target_modules is not a valid regular expression: missing ), ...
    """
    patterns = tuple(found for field in FIELDS if field in fields for found in _patterns_of(field, values.get(field)))
    if patterns:
        _try_patterns(patterns, tuple(names))


def _patterns_of(field: str, value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield field, pattern and the form in which PEFT matches it, for the patterns that could be slow or invalid."""
    if field in ("target_modules", "exclude_modules"):  # in a list they are names
        patterns, form = [value] if isinstance(value, str) else [], "{}"
    elif field == "layers_pattern":
        patterns, form = [value] if isinstance(value, str) else value or [], r"(?:^|.*?\.){}\.(?P<idx>\d+)\..*"
    else:
        patterns, form = list(value or ()), r"(.*\.)?({})$"
    yield from ((field, pattern, form) for pattern in patterns if not PLAIN.fullmatch(pattern))


@lru_cache(maxsize=64)
def _try_patterns(patterns: tuple[tuple[str, str, str], ...], names: tuple[str, ...]) -> None:
    request = json.dumps([[(pattern, form) for _, pattern, form in patterns], names])
    command = [sys.executable, "-I", "-S", "-c", _TRIAL]
    fix = "Use a list of module names instead"
    try:
        trial = subprocess.run(command, input=request, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        fields = " or ".join(dict.fromkeys(field for field, _, _ in patterns))
        slow = f"{fields} has a regular expression that takes over {SECONDS:g} seconds to match: {show(patterns[0][1])}"
        raise ActshiftError(f"{slow}. {fix}.") from None
    except OSError as error:
        raise ActshiftError(f"Regular expressions cannot be checked here ({error.strerror}). {fix}.") from error
    if trial.stdout:
        number, problem = json.loads(trial.stdout)
        field, pattern, _ = patterns[number]
        raise ActshiftError(f"{field} is not a valid regular expression: {problem}, in {show(pattern)}. {fix}.")
    if trial.returncode:
        field, pattern, _ = patterns[0]
        raise ActshiftError(f"{field} has a regular expression that cannot be matched: {show(pattern)}. {fix}.")
