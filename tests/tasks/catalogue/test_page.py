from __future__ import annotations

from pathlib import Path

import pytest

from actshift.tasks import get_task, task_names
from actshift.tasks.catalogue import entry_of, page
from actshift.tasks.source import SPLITS
from tests.tasks.shared import SHARED, needs_shared

PAGE = Path(__file__).parents[3] / "docs/tasks.md"


def test_the_page_has_every_task_with_an_example() -> None:
    text = page([entry_of(get_task(name)) for name in task_names()])
    for name in task_names():
        assert f"| [{name}](#{name}) |" in text and f"\n## {name}\n" in text
    assert text.count("A made-up row in the hub's layout, prompt and completion:") == len(task_names())
    assert "| 7,473 | ~660 | ~660 | the hub | number | 3 | 256 |" in text
    assert "## A task of one's own" in text


def test_a_size_is_about_right_where_a_split_is_cut_and_exact_elsewhere() -> None:
    entry = entry_of(get_task("sst2"))
    assert entry.about == ("train", "validation")
    assert [entry.sizes[split] for split in SPLITS] == [66002, 1347, 872]


@pytest.mark.slow
@needs_shared
def test_the_page_of_the_docs_is_what_the_command_makes() -> None:
    names = task_names()
    text = page([entry_of(get_task(name), SHARED if (SHARED / name).is_dir() else None) for name in names])
    assert PAGE.read_text(encoding="utf-8") == text
