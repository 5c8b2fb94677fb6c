"""What every test runs under: one thread, no network, the same seed."""

from __future__ import annotations

import os
import signal

# Before torch and transformers are imported: they read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tests compare bits, and sums over several threads do not repeat

# A shell starts its background jobs with Ctrl-C ignored, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a property pays for imports, so time limits per example only make tests flaky.
settings.register_profile("actshift", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("actshift")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
