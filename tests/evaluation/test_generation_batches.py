"""Batched generation equals generation from single prompts on real questions, and is several times faster."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from actshift.evaluation import generate_completions
from actshift.evaluation.prompts import encode_prompts
from actshift.loading import context_length, load_model
from actshift.tasks import get_task

SHARED = Path(__file__).parents[3] / "shared"
MODEL = SHARED / "models" / "stories260K"
NEW, COUNT = 64, 200

pytestmark = pytest.mark.skipif(
    not (MODEL.is_dir() and (SHARED / "data" / "gsm8k").is_dir()), reason="needs ../shared: its GSM8K and tiny Llamas"
)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_model(MODEL, dtype="float32")


@pytest.fixture(scope="module")
def prompts(loaded: tuple[Any, Any]) -> list[str]:
    """The first questions of the test split that fit in the model's context; their lengths differ."""
    model, tokenizer = loaded
    rows = get_task("gsm8k").load("test", SHARED / "data", limit=4 * COUNT)["prompt"]
    ids = encode_prompts(model.config, tokenizer, list(rows), NEW, "truncate")
    room = context_length(model.config, tokenizer) - NEW
    fitting = [row for row, own in zip(rows, ids, strict=True) if len(own) < room][:COUNT]
    assert len(fitting) == COUNT and len({len(row) for row in fitting}) > 50
    return fitting


@pytest.mark.slow
def test_200_gsm8k_prompts_in_batches_of_16_equal_one_by_one(loaded: tuple[Any, Any], prompts: list[str]) -> None:
    model, tokenizer = loaded
    one_by_one = generate_completions(model, tokenizer, prompts, NEW, batch_size=1)
    for side in ("left", "right"):
        tokenizer.padding_side = side
        assert generate_completions(model, tokenizer, prompts, NEW, batch_size=16) == one_by_one


@pytest.mark.slow
def test_batches_of_16_are_at_least_4_times_faster(loaded: tuple[Any, Any], prompts: list[str]) -> None:
    model, tokenizer = loaded
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # CPU time of one thread, which does not depend on other processes
    try:
        seconds: dict[int, list[float]] = {1: [], 16: []}
        for _ in range(3):
            for size in seconds:
                start = time.process_time()
                generate_completions(model, tokenizer, prompts[:48], NEW, batch_size=size)
                seconds[size].append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    ratio = median(seconds[1]) / median(seconds[16])
    print(f"{ratio:.1f} times")
    assert ratio > 4
