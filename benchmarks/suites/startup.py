"""Wall time of whole processes, started in turns. The ratio compares `import actshift` to `import torch`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figure import Figure, Note
from benchmarks.timing import interleaved, over, spread

HELP, EMPTY = "actshift --help", "python, nothing imported"
TORCH, OURS, BOTH = "import torch", "import actshift", "import torch, actshift"
WHERE = "processes"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure the run time of each process."""
    cases = {
        EMPTY: process(sys.executable, "-c", "pass"),
        HELP: process(Path(sysconfig.get_path("scripts"), "actshift"), "--help"),
        **{line: process(sys.executable, "-c", line) for line in (OURS, TORCH, BOTH)},
    }
    samples = interleaved(cases, rounds=2 if quick else 15, warmup=1)
    for case, seconds in samples.items():
        yield Figure("start-up", case, WHERE, *spread(seconds), unit="s")
    for case in (OURS, BOTH):
        yield Figure("over import torch", case, WHERE, *over(samples, case, TORCH))


def process(*command: str | Path) -> Callable[[], object]:
    """Return a function that runs a command and waits for it."""
    return lambda: subprocess.run(command, check=True, capture_output=True)
