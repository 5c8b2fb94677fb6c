"""`actshift tasks` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with the word problems of one task."""
    folder = tmp_path / "data" / "mawps"
    folder.mkdir(parents=True)
    for split, rows in {"train": 3, "dev": 2, "test": 1}.items():
        lines = ({"prompt_fields": {"question": f"{n} + 1 ?"}, "answer": {"final": n + 1.0}} for n in range(rows))
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder.parent


def test_the_table_lists_splits_scorers_and_settings(actshift: Run) -> None:
    code, out, _ = actshift("tasks")
    lines = out.splitlines()
    assert code == 0
    assert "train" in lines[0] and "scorer" in lines[0]
    gsm8k = next(line for line in lines if line.startswith("gsm8k"))
    assert {"7,473", "~660", "number", "3", "256"} <= set(gsm8k.split())


def test_one_task_is_shown_with_an_example(actshift: Run, data_dir: Path) -> None:
    code, out, _ = actshift("tasks", "mawps", "--data-dir", data_dir)
    assert code == 0
    assert "train 3, validation 2, test 1" in out
    assert "prompt:\nQuestion: 1 + 1 ?\nAnswer:\n" in out and out.endswith("completion:\n 2\n")
    assert "made up, in the hub's layout" in actshift("tasks", "mawps").out


def test_json_of_all_and_of_one(actshift: Run, data_dir: Path) -> None:
    entries = json.loads(actshift("tasks", "--data-dir", data_dir, "--json").out)
    counted = {entry["name"]: entry["sizes"]["train"] for entry in entries if entry["counted"]}
    assert counted == {"mawps": 3}
    assert json.loads(actshift("tasks", "boolq", "--json").out)["labels"] == ["no", "yes"]


def test_the_markdown_page_counts_local_rows(actshift: Run, data_dir: Path, tmp_path: Path) -> None:
    code, _, _ = actshift("tasks", "--data-dir", data_dir, "--out", tmp_path / "tasks.md")
    text = (tmp_path / "tasks.md").read_text(encoding="utf-8")
    assert code == 0
    assert "| 3 | 2 | 1 | the folder | number | 3 | 256 |" in text and text.count("A training row") == 1


def test_a_user_defined_task_is_shown(actshift: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a\nup,down\n")
    (tmp_path / "pairs.yaml").write_text('data: {test: rows.csv}\nprompt: "{q} ="\ncompletion: " {a}"\n')
    code, out, _ = actshift("tasks", tmp_path / "pairs.yaml")
    assert code == 0
    assert "test 1" in out and "up =" in out


def test_invalid_options_fail_with_one_line(refused, data_dir: Path, tmp_path: Path) -> None:
    assert "did you mean 'gsm8k'" in refused("tasks", "gsm8")
    assert "reads train.jsonl.gz (or .jsonl) in" in refused("tasks", "gsm8k", "--data-dir", data_dir)
    assert "There is no folder" in refused("tasks", "--data-dir", tmp_path / "none")
    assert "There is no folder" in refused("tasks", "--out", tmp_path / "none" / "tasks.md")
    assert "Leave out the task's name." in refused("tasks", "gsm8k", "--out", tmp_path / "tasks.md")
    (data_dir / "mawps" / "dev.jsonl").unlink()
    assert "which has test.jsonl, train.jsonl" in refused("tasks", "mawps", "--data-dir", data_dir)
