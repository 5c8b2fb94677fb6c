"""A disk that is full when a verb writes its result: one line, and nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from actshift import JointConfig, SteeringConfig, attach
from tests.cli.conftest import PAIRS, TEXTS, Run
from tests.disks import small_disk

VERBS = {
    "export merged": "export --adapter {vector} --to merged --out {disk}/new",
    "export half": "export --adapter {joint} --half weights --out {disk}/deep/new",
    "export to the disk": "export --adapter {joint} --half activations --out {disk}/empty",
    "vector": "vector --model {model} --positive {texts} --negative {pairs} --out {disk}/new",
    "figure": "vector --model {model} --positive {texts} --negative {pairs} --out {tmp}/new --figure {disk}/f.png",
    "extract": "extract --model {model} --finetuned {finetuned} --data {texts} --rank 2 --no-linear --out {disk}/new",
    "report": "report --model {model} --data {texts} --rank 2 --out {disk}/report.html",
    "locate": "locate --model {model} --data {texts} --budget 0.1 --out {disk}/i.json",
    "eval": "eval --model {model} --data {pairs} --max-new-tokens 1 --out {disk}/predictions.jsonl",
    "tasks": "tasks --out {disk}/tasks.md",
    "demo": "demo --steps 1 --methods post_block --out {disk}/new",
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with one free block, an empty folder and a file."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "empty").mkdir()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 4096))
        yield disk


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_full_disk_fails_with_one_line_and_leaves_nothing(
    verb: str, actshift: Run, full_disk: Path, tmp_path: Path, model: Path, vector: Path,
    finetuned: Path, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("actshift.demo.run.TEST_ROWS", 20)
    pairs = write_rows(PAIRS * 8).rename(tmp_path / "pairs.jsonl")
    joint = attach(AutoModelForCausalLM.from_pretrained(model), JointConfig(r=16, steering=SteeringConfig(rank=16)))
    joint.save_pretrained(str(tmp_path / "joint"))
    names = {"disk": full_disk, "tmp": tmp_path, "model": model, "vector": vector, "finetuned": finetuned}
    words = VERBS[verb].format(**names, joint=tmp_path / "joint", pairs=pairs, texts=write_rows(TEXTS)).split()
    if verb == "vector" or verb == "figure":
        words[words.index("--negative") + 1] = str(write_rows(TEXTS[::-1]).rename(tmp_path / "other.jsonl"))
        words[words.index("--positive") + 1] = str(write_rows([{"text": row["text"] + " w5"} for row in TEXTS]))
    if verb == "locate":  # its file is small
        (full_disk / "last block").write_bytes(bytes(4096))
    code, out, err = actshift(*words)
    assert (code, out) == (2, "") and "Traceback" not in err and "nexpected" not in err
    assert err.splitlines()[-1].startswith("actshift: No space is left on the device"), err  # demo shows its progress
    left = {path.name for path in full_disk.rglob("*") if path.is_file()}
    assert left - {"filler", "last block", "unfinished.safetensors"} == set()  # extract can continue
