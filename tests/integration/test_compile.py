"""torch.compile compiles a steered model without graph breaks, in training and in decoding with a static cache."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import StaticCache

from actshift import JointConfig, LoReFT, SteeringConfig, Vector, attach
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES

CONFIGS = {
    "low-rank": SteeringConfig(rank=2),
    "vector": SteeringConfig(adapter=Vector()),
    "loreft": SteeringConfig(adapter=LoReFT(rank=2)),
    "joint": JointConfig(r=2, steering=SteeringConfig(rank=2)),
}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CASES = [
    ("low-rank", "cpu", "eager"),
    *(pytest.param(name, "cpu", "aot_eager", marks=pytest.mark.slow) for name in CONFIGS),
    *(pytest.param(name, "cuda", "inductor", marks=[pytest.mark.gpu, CUDA]) for name in CONFIGS),
]
every_case = pytest.mark.parametrize(("name", "device", "backend"), CASES)
CLOSE = dict(atol=1e-4, rtol=1e-4)


@pytest.fixture(autouse=True)
def _empty_compile_cache():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def steered(name, device):
    model = attach(ARCHITECTURES["llama"](num_hidden_layers=2), CONFIGS[name])
    randomise(model)
    return model.to(device)


@every_case
@pytest.mark.slow
def test_a_compiled_training_step_equals_eager(name, device, backend):
    ids = torch.randint(3, 90, (2, 8), generator=torch.Generator().manual_seed(0)).to(device)
    model = steered(name, device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counting = CompileCounterWithBackend(backend)
    compiled = torch.compile(model.get_base_model(), fullgraph=True, backend=counting)
    results = []
    for variant in (model, compiled, compiled):
        loss = variant(input_ids=ids, labels=ids, use_cache=False).loss
        results.append([loss, *torch.autograd.grad(loss, trained)])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], **CLOSE)
    assert counting.frame_count == 1


@every_case
@torch.no_grad()
def test_compiled_decoding_with_a_static_cache_equals_eager(name, device, backend):
    ids = torch.randint(3, 90, (2, 5), generator=torch.Generator().manual_seed(0)).to(device)
    model = steered(name, device).eval().get_base_model()
    counting = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, backend=counting)
    decoded = []
    for variant in (model, compiled):
        cache = StaticCache(model.config, max_cache_len=16)
        logits = [model(input_ids=ids, past_key_values=cache).logits[:, -1]]
        for position in range(5, 9):
            chosen = logits[-1].argmax(-1, keepdim=True)
            place = torch.tensor([[position]], device=device)
            logits.append(variant(input_ids=chosen, past_key_values=cache, position_ids=place).logits[:, -1])
        decoded.append(torch.stack(logits))
    torch.testing.assert_close(*decoded, **CLOSE)
    assert counting.frame_count == 1, "every token triggers a compilation"
