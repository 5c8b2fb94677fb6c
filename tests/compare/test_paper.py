"""The named methods are those of the paper's table: they train as many parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from actshift.compare.methods import METHODS
from actshift.training.build import adapt, base_without_weights
from actshift.training.configs import AdapterSpec
from actshift.training.plan import counts
from tests.integration.test_published_counts import CONFIGS, ROWS

PUBLISHED = {
    "full": "full fine-tuning",
    "lora": "LoRA r=8",
    "reft": "ReFT r=8",
    "lofit": "LoFiT",
    "jola": "JoLA",
    "vector": "post-block vector",
    "rank1": "post-block r=1",
    "linear": "post-block r=8 linear",
    "nonlinear": "post-block r=8 nonlinear",
}


@pytest.mark.parametrize("model", ["Llama-3.2-1B", "Gemma-3-1B"])
def test_the_named_methods_train_what_the_papers_do(model: str, tmp_path: Path) -> None:
    AutoConfig.for_model(**CONFIGS[model]).save_pretrained(tmp_path)
    published = {row[1]: row[2] for row in ROWS if row[0] == model}
    for name, label in PUBLISHED.items():
        method = METHODS[name]
        settings = method.cell_settings(method.rates[0], seed=0, model=str(tmp_path))
        adapted = adapt(base_without_weights(settings), AdapterSpec.from_settings(settings), steps=100)
        trainable, _ = counts(adapted, settings)
        assert trainable == published[label], name
