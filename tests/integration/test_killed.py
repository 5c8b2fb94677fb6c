"""Every verb that writes leaves a whole result or none when it is killed, and running it again gives that result."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoModelForCausalLM

from actshift import JointConfig, SteeringConfig, Vector, attach
from actshift.demo import BASE_DIR
from actshift.demo.task import make_rows
from tests.analysis.twins import moved
from tests.contract.cases import randomise
from tests.tiny import save_adapter

MOMENTS = 5  # spread over the time of a command, and as many over its changes to files


class Ended(NamedTuple):
    code: int
    seconds: float
    changes: int  # to files
    err: str


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a command in a fork of a warm process, and kill it after some seconds, or at a change to files."""
    command = [sys.executable, "-m", "tests.integration.kill_server"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin and server.stdout and server.stdout.readline() == "ready\n"

    def ask(words: Sequence[object], moment: float | None = None) -> Ended:
        print(json.dumps([[str(word) for word in words], moment]), file=server.stdin, flush=True)
        return Ended(*json.loads(server.stdout.readline()))

    yield ask
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, models and adapters that the verbs read."""
    folder = tmp_path_factory.mktemp("files")
    rows = make_rows("train", 40, 0)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for side in (0, 1):
        texts = [{"text": row["prompt"] if side else row["completion"]} for row in rows[:8]]
        (folder / f"side{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (folder / "methods.yaml").write_text("methods: {mine: {settings: {adapter: vector}, rates: [0.1, 0.2]}}")
    base = AutoModelForCausalLM.from_pretrained(BASE_DIR)
    shutil.copytree(BASE_DIR, folder / "finetuned")
    moved(base, 0.1, "layers.5").save_pretrained(folder / "finetuned")
    save_adapter(folder / "vector", BASE_DIR, adapter=Vector(), task_type="CAUSAL_LM")
    joint = attach(base, JointConfig(r=2, steering=SteeringConfig(rank=2)))
    randomise(joint)
    joint.save_pretrained(str(folder / "joint"))
    return folder


VERBS = {
    "train": "train --model {base} --data {files}/rows.jsonl --out {out}/run --max-steps 4 --save-steps 1"
    " --batch-size 4 --eval-share 0.2",
    "train full": "train --model {base} --data {files}/rows.jsonl --out {out}/run --max-steps 2 --save-steps 1"
    " --batch-size 4 --method full",
    "compare": "compare --model {base} --data {files}/rows.jsonl --methods {files}/methods.yaml --out {out}/table"
    " --seeds 1 --max-steps 1 --batch-size 4 --max-new-tokens 2",
    "vector": "vector --model {base} --positive {files}/side1.jsonl --negative {files}/side0.jsonl --out {out}/vector"
    " --figure {out}/vector.png",
    "extract": "extract --model {base} --finetuned {files}/finetuned --data {files}/rows.jsonl --rank 2 --no-linear"
    " --limit 16 --out {out}/adapter",
    "export merged": "export --adapter {files}/vector --to merged --out {out}/merged",
    "export half": "export --adapter {files}/joint --half weights --out {out}/deep/half",
    "report": "report --model {base} --data {files}/rows.jsonl --limit 4 --rank 2 --out {out}/report.html",
    "demo": "demo --steps 1 --methods post_block,vector --out {out}/demo",
    "eval": "eval --model {base} --data {files}/rows.jsonl --limit 8 --max-new-tokens 2 --out {out}/predictions.jsonl",
}
WHOLE = ("adapter_config.json", "config.json", "report.html", "table.json", "predictions.jsonl")
"""Files that make a result usable: when one of them exists, its folder is complete."""
TIMES = re.compile(
    r'"[a-z_]*seconds":\s*(?:[\d.e-]+|\{[^}]*\})|\| \d+ \|$|\d{4}-\d\d-\d\d(?:[T ][\d:.]+)?|'
    r"<dc:date>.*?</dc:date>|(?:id=\"|#|url\(#)[\w-]*[0-9a-f]{6,}\w*",
    re.MULTILINE,
)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return the contents of the files below a folder by name, texts without times; logs do not count."""
    files: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name not in (".lock", "log.txt") and ".actshift-" not in name:
            text = path.suffix in (".json", ".jsonl", ".md", ".html", ".svg")
            files[name] = TIMES.sub("", path.read_text()) if text else path.read_bytes()
    return files


def assert_equal(actual: dict[str, bytes | str], expected: dict[str, bytes | str], at: str = "") -> None:
    assert actual.keys() == expected.keys(), at
    for name in expected:
        assert actual[name] == expected[name], f"{name}, {at}"


def assert_whole_or_nothing(out: Path, expected: dict[str, bytes | str]) -> None:
    """Check that every result that can be used is complete."""
    found = contents(out)
    for name in found:
        if Path(name).name in WHOLE and "checkpoint" not in name and name in expected:
            folder = str(Path(name).parent)
            siblings = {other for other in expected if str(Path(other).parent) == folder and not other.endswith(".png")}
            assert siblings <= found.keys(), name
            assert all(found[other] == expected[other] for other in siblings), name


def run_again(run: Run, words: list[str], out: Path) -> None:
    """Run a command as its user would: again, with --resume if it is unfinished, or not if it is finished."""
    ended = run(words)
    if ended.code and ("--resume" in ended.err or list(out.glob("*/checkpoints"))):
        ended = run([*words, "--resume"])
    assert ended.code == 0 or "not empty" in ended.err, ended.err


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_killed_at_any_moment_leaves_nothing_partial_and_can_run_again(
    run: Run, files: Path, tmp_path: Path, verb: str
) -> None:
    out = tmp_path / "out"
    words = VERBS[verb].format(base=BASE_DIR, files=files, out=out).split()
    out.mkdir()
    whole = run(words)
    assert whole.code == 0, whole.err
    expected = contents(out)
    shares = [(number + 0.5) / MOMENTS for number in range(MOMENTS)]
    moments = [*(whole.seconds * share for share in shares), *(round(whole.changes * share) for share in shares)]
    killed = 0
    for moment in moments:
        shutil.rmtree(out)
        out.mkdir()
        killed += run(words, moment).code == -signal.SIGKILL
        assert_whole_or_nothing(out, expected)
        run_again(run, words, out)
        assert_equal(contents(out), expected, f"{verb}, moment {moment}")
        assert not list(out.glob("**/.actshift-*")), f"{verb}, moment {moment}"
    assert killed >= MOMENTS
