from __future__ import annotations

from actshift.tasks import get_task
from actshift.tasks.listops import evaluate


def test_splits_are_generated_apart_and_alike() -> None:
    task = get_task("listops")
    splits = {split: task.load(split, limit=100) for split in ("train", "validation", "test")}
    prompts = [prompt for rows in splits.values() for prompt in rows["prompt"]]
    assert len(set(prompts)) == 300
    for row in splits["test"]:
        tokens = row["prompt"].removesuffix("\nValue:")
        assert row["completion"] == f" {evaluate(tokens)}" and 16 < len(tokens.split()) < 64
        assert task.scorer(row["completion"], row)
    assert task.load("test", limit=3).to_list() == splits["test"].to_list()[:3]
