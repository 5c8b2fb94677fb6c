from __future__ import annotations

import pytest
import torch

from actshift import locate
from actshift.analysis.locate import LocateReport
from tests.gradients.parity import batches_of, model_of


@pytest.fixture(scope="session")
def report() -> LocateReport:
    """The report on a tiny GPT-2 with 3 blocks of width 32, from 6 batches."""
    torch.manual_seed(0)
    return locate(model_of(), batches_of(6), rank=4)
