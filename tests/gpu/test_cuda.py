"""No-op, save, load and training on a CUDA device in bfloat16. Run by hand with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from actshift import SteeringConfig, attach, load_adapter
from tests.contract.cases import fresh_model, randomise
from tests.zoo import example_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture
def inputs():
    return {name: tensor.cuda() for name, tensor in example_inputs("llama").items()}


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits


def test_a_fresh_adapter_is_a_no_op_and_a_loaded_one_is_identical(inputs, tmp_path):
    base = logits(fresh_model("llama").cuda().bfloat16(), inputs)
    model = attach(fresh_model("llama").cuda().bfloat16(), SteeringConfig(rank=4)).eval()
    assert torch.equal(logits(model, inputs), base)
    randomise(model.cpu())
    steered = logits(model.cuda(), inputs)
    assert steered.dtype == torch.bfloat16 and not torch.equal(steered, base)
    model.save_pretrained(str(tmp_path))
    loaded = load_adapter(fresh_model("llama").cuda().bfloat16(), str(tmp_path)).eval()
    assert torch.equal(logits(loaded, inputs), steered)


def test_the_loss_falls_under_autocast_with_checkpointing(inputs):
    model = attach(fresh_model("llama").cuda(), SteeringConfig(rank=4))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
