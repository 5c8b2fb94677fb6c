"""The page of all tasks, and the sizes in its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from actshift.tasks import get_task, task_names
from actshift.tasks.catalogue import describe_task, render_page
from actshift.tasks.source import SPLITS
from tests.tasks.published import PUBLISHED, needs_published

PAGE = Path(__file__).parents[2] / "docs/tasks.md"


def test_the_page_has_every_task_with_an_example() -> None:
    text = render_page([describe_task(get_task(name)) for name in task_names()])
    for name in task_names():
        assert f"| [{name}](#{name}) |" in text and f"\n## {name}\n" in text
    assert text.count("A made-up row in the hub's layout, as prompt and completion:") == len(task_names())
    assert "| 7,473 | ~660 | ~660 | the hub | number | 3 | 256 |" in text
    assert "## Custom tasks" in text


def test_the_size_of_a_share_is_approximate_and_that_of_a_whole_split_exact() -> None:
    entry = describe_task(get_task("sst2"))
    assert entry.about == ("train", "validation")
    assert [entry.sizes[split] for split in SPLITS] == [66002, 1347, 872]


@pytest.mark.slow
@needs_published
def test_the_page_in_docs_equals_the_output_of_the_command() -> None:
    names = task_names()
    text = render_page(
        [describe_task(get_task(name), PUBLISHED if (PUBLISHED / name).is_dir() else None) for name in names]
    )
    assert PAGE.read_text(encoding="utf-8") == text
