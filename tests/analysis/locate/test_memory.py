"""`locate` needs no more memory than a training step and its sums. Each run has its own process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actshift.gradients.sketch import CORE, SIZE

MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
from transformers import LlamaConfig, LlamaForCausalLM
import actshift
from actshift import Intervention, SteeringConfig, attach, locate
from actshift.analysis.locate.measure import RESIDUAL
from actshift.tuner.loading import lora_model

torch.manual_seed(0)
size = dict(hidden_size=768, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8)
model = LlamaForCausalLM(LlamaConfig(vocab_size=256, **size))
ids = torch.randint(3, 200, (8, 192))
batch = {"input_ids": ids, "labels": ids}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
run = sys.argv[1]
if run == "steering":
    model = attach(model, SteeringConfig(interventions=[Intervention(site=site) for site in RESIDUAL]))
if run == "lora":
    model = lora_model(model)
before = peak()
if run.startswith("locate"):
    report = locate(model, [batch] * 2, weights=run == "locate-all")
    assert all(place.sketched for place in report.places)
else:
    for _ in range(2):
        model(**batch, use_cache=False).loss.backward()
print(peak() - before)
"""


def peak(run: str) -> float:
    """Return the peak memory of a run in MiB, without the memory before it."""
    process = subprocess.run([sys.executable, "-c", MEASURE, run], capture_output=True, text=True, check=True)
    return float(process.stdout)


def sums(widths: list[tuple[int, int]], groups: int = 8, layers: int = 4) -> float:
    """Return the MiB of the sketches of these places in every block."""
    numbers = sum(SIZE * (inputs + outputs) + CORE**2 for inputs, outputs in widths)
    return 4 * groups * layers * numbers / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_memory_is_bounded_by_a_training_step_and_the_sums() -> None:
    d, ff, spare = 768, 1536, 40  # MiB of libraries that are loaded during the run
    sites = [(d, d)] * 3
    maps = [(d, d)] * 4 + [(d, ff)] * 3
    assert peak("locate") < peak("steering") + sums(sites) + spare
    assert peak("locate-all") < peak("lora") + sums(sites + maps) + spare
