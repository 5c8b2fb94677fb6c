"""Rows that a user names by --data or --task."""

from __future__ import annotations

import pytest

from actshift import ActshiftError
from actshift.cli.models import Base
from actshift.cli.rows import check_source, head_for_rows, rows_for
from actshift.model_head import Head
from tests.cli.conftest import PAIRS
from tests.encoders import classed, save_encoder


@pytest.mark.parametrize("sources", [(None, None), ("rows.jsonl", "gsm8k")])
def test_rows_come_from_exactly_one_source(sources) -> None:
    with pytest.raises(ActshiftError, match="Give either --data with rows or --task"):
        check_source(*sources, None)


def test_a_folder_of_files_needs_a_task() -> None:
    with pytest.raises(ActshiftError, match="Add --task"):
        check_source("rows.jsonl", None, "folder")
    check_source(None, "gsm8k", "folder")


def test_rows_are_limited_and_keep_their_order(model, write_rows) -> None:
    rows = rows_for(Base(str(model)), str(write_rows(PAIRS)), None, None, None, limit=3)
    assert rows.to_list() == PAIRS[:3]
    assert len(rows_for(Base(str(model)), str(write_rows(PAIRS)), None, None, None, limit=99)) == len(PAIRS)


def test_an_encoder_gets_a_head_with_the_classes_of_the_rows(tmp_path, write_rows) -> None:
    save_encoder(tmp_path / "encoder")
    rows = rows_for(Base(str(tmp_path / "encoder")), str(write_rows(classed(8))), None, None, None, limit=8)
    assert head_for_rows(Base(str(tmp_path / "encoder")), None, rows) == Head("SEQ_CLS", ("dull", "fine"))
