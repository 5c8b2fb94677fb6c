"""Where the data of the benchmarks lies on the machine of the project's authors, and elsewhere does not."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared/data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the data of the benchmarks in {SHARED}")
ABSENT = ("alpaca", "asdiv", "svamp")
"""The tasks that it does not have."""
