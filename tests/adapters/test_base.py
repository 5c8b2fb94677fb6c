"""Adapter descriptions: JSON round trip, registration, and errors for unknown kinds and fields."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import actshift
from actshift import ActshiftError, LowRank, Vector
from actshift.adapters import (
    ADAPTERS,
    Ablation,
    DiReFT,
    GatedVector,
    HeadScale,
    HeadVector,
    JoLA,
    LoReFT,
    NoReFT,
    adapter_from_dict,
)


@pytest.mark.parametrize(
    "adapter",
    [
        *(Vector(), Ablation(), GatedVector()),
        LowRank(),
        LowRank(3, None, True, "reference"),
        *(LoReFT(2), NoReFT(3), DiReFT()),
        *(HeadScale(l1=0.1), HeadVector(), HeadVector((3, 1))),
        JoLA(l0=0, temperature=0.9, end_temperature=0.2, anneal_steps=7),
    ],
)
def test_json_round_trip_keeps_every_field(adapter):
    assert adapter_from_dict(json.loads(json.dumps(adapter.to_dict()))) == adapter


def test_every_kind_is_registered_under_its_name():
    assert {kind: cls.kind for kind, cls in ADAPTERS.items()} == {kind: kind for kind in ADAPTERS}
    assert set(ADAPTERS) == set(
        "vector ablation gated_vector low_rank loreft noreft direft head_scale head_vector jola".split()
    )


NEW_ADAPTER = """
from actshift.adapters.vector import Vector

class Extra(Vector):
    kind = "extra"
"""


@pytest.mark.slow
def test_a_new_file_in_the_package_registers_its_adapter(tmp_path: Path):
    package = shutil.copytree(Path(actshift.__file__).parent, tmp_path / "actshift")
    (package / "adapters" / "extra.py").write_text(NEW_ADAPTER)
    code = "from actshift.adapters import adapter_from_dict; print(adapter_from_dict({'kind': 'extra'}))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("Extra()")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "low_ranc"}, "did you mean 'low_rank'"),
        ({}, "Unknown adapter kind None"),
        ({"kind": "low_rank", "rnak": 3}, "did you mean 'rank'"),
        ({"kind": "vector", "rank": 3}, "Its fields are: none"),
    ],
)
def test_unknown_kinds_and_fields_are_named_with_the_nearest_allowed_one(values, message):
    with pytest.raises(ActshiftError, match=message):
        adapter_from_dict(values)
