"""Reinforcement learning with a custom reward: the bundled model learns to talk about cats.

python grpo_reward.py          # offline, a few seconds

On the command line, the equivalent is --objective grpo --reward grpo_reward:cats in the folder of this file.
"""

from __future__ import annotations

import json
from pathlib import Path

from actshift.demo import BASE_DIR
from actshift.demo.task import NUMBERS
from actshift.training import TrainSettings, train

NAMES = "anna ben clara david emma felix".split()


def cats(completions: list[str], **columns: list) -> list[float]:
    """Return one reward for each completion; `columns` contains the prompts and all other columns of the rows."""
    return [float("cats" in text) for text in completions]


def main() -> None:
    folder = Path("cats")
    folder.mkdir(parents=True)
    rows = [{"prompt": f"{name} has {number}"} for name in NAMES for number in NUMBERS[:10]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings(
        model=str(BASE_DIR),
        data=str(folder / "rows.jsonl"),
        out=str(folder / "run"),
        objective="grpo",
        reward=("grpo_reward:cats",),
        max_new_tokens=2,
        max_steps=12,
        batch_size=64,
        gradient_accumulation=1,
        learning_rate=1e-2,
    )
    print(train(settings).fit.figures)


if __name__ == "__main__":
    main()
