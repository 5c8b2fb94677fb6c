"""Reinforcement learning with a reward of one's own: the bundled model comes to like cats. Offline, some seconds.

From the command line it is the same with --objective grpo --reward grpo_reward:cats, in the folder of this file.
"""

from __future__ import annotations

import json
from pathlib import Path

from actshift.demo import BASE_DIR
from actshift.demo.task import NUMBERS
from actshift.training import TrainSettings, train


def cats(completions: list[str], **columns: list) -> list[float]:
    """A number for each completion; columns holds the prompts, and every other column of the rows."""
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
