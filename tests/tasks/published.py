"""The published data of the benchmarks, which is not part of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parents[3] / "shared/data"

needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"needs the data of the benchmarks in {PUBLISHED}")
ABSENT = ("alpaca", "asdiv", "svamp")
"""The tasks whose data is not in this folder."""
