"""Settings of every test: one thread, no network, a fixed seed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Set before torch and transformers are imported, because they read these only once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tests compare results bit by bit, and sums over several threads are not reproducible

# Background jobs of a shell ignore Ctrl-C, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example includes import times, so a deadline per example would make tests flaky.
settings.register_profile("actshift", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("actshift")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of a real language model, SmolLM2-135M-Instruct; skip the test if it cannot be downloaded."""
    return _real_model("model_folder")


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    """The GGUF file of the same model."""
    return _real_model("gguf_file")


def _real_model(form: str) -> Path:
    from actshift import ActshiftError
    from scripts import real_models

    try:
        return getattr(real_models, form)("smollm2")
    except ActshiftError as error:
        pytest.skip(str(error))
