"""Threads and async tasks on one model compute what each computes alone, bit for bit."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from actshift import JointConfig, SteeringConfig, attach, prompt_lengths, strength
from actshift.sites import Positions
from actshift.tuner import run_state, steering_layers
from tests.contract.cases import fresh_model, randomise

CONFIGS = {
    "all": lambda: SteeringConfig(rank=2),
    "ends": lambda: SteeringConfig(rank=2, positions=Positions.ends(1, 1)),
    "generated": lambda: SteeringConfig(rank=2, positions=Positions.generated()),
    "joint": lambda: JointConfig(r=2, steering=SteeringConfig(rank=2)),
}
ROWS = (["first", "second", "__base__"], ["second", "second", "first"], ["__base__", "first", "first"])


@pytest.fixture
def _many_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def two_adapters(name: str = "llama", kind: str = "all"):
    model = attach(fresh_model(name), CONFIGS[kind](), "first")
    model.add_adapter("second", CONFIGS[kind]())
    for number, adapter in enumerate(("first", "second")):
        model.set_adapter(adapter)
        randomise(model, 0.3 + 0.2 * number)
    model.set_adapter("first")
    return model.eval().requires_grad_(False)


def calls(model) -> list:
    """Return functions that run the model with prompts, rows, strengths and prompt lengths of their own."""
    jobs, draw = [], torch.Generator().manual_seed(0)
    for number in range(24):
        seq = 3 + number % 3
        ids, names, s = torch.randint(3, 90, (3, seq), generator=draw), ROWS[number % 3], (0, 0.5, 2)[number % 3]

        def rows(ids=ids, names=names):
            return model(ids, adapter_names=names).logits

        def weaker(ids=ids, s=s):
            with model.strength(s):
                return model(ids).logits

        def generated(ids=ids, names=names, s=s):
            with strength(model, s, "first"):
                return model.generate(input_ids=ids, adapter_names=names, max_new_tokens=2, do_sample=False)

        def prompts(ids=ids, number=number):
            with prompt_lengths(model, [1, 2, number % 3]):
                return model(ids).logits

        jobs += [rows, weaker, generated, prompts]
    return jobs


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.usefixtures("_many_switches")
def test_four_threads_equal_one(kind):
    jobs = calls(two_adapters(kind=kind))

    def run(job):
        with torch.no_grad():
            return job()

    expected = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, jobs))
    assert [torch.equal(*pair) for pair in zip(together, expected, strict=True)] == [True] * len(jobs)
    assert run_state.overrides() is None and not run_state.in_use and not run_state.replayed


@torch.no_grad()
def test_a_strength_block_is_seen_by_its_own_thread_task_and_copies_of_its_context():
    model, ids = two_adapters(), torch.tensor([[5, 6, 7]])
    full, results = model(ids).logits, {}

    def run(key):
        with torch.no_grad():
            results[key] = model(ids).logits

    async def task(s):
        with strength(model, s):
            await asyncio.sleep(0)
            return model(ids).logits

    async def tasks():
        return await asyncio.gather(task(0), task(0.5))

    with strength(model, 0.5):
        run("own")
        copied = contextvars.copy_context()
        for key, function in (("new", lambda: run("new")), ("copy", lambda: copied.run(run, "copy"))):
            thread = threading.Thread(target=function, name=key)
            thread.start()
            thread.join()
        with strength(model, 0, "first"):
            run("inner")
    assert torch.equal(results["new"], full) and torch.equal(results["copy"], results["own"])
    assert not torch.equal(results["own"], full)
    with model.disable_adapter():
        assert torch.equal(results["inner"], model(ids).logits)
    for found, expected in zip(asyncio.run(tasks()), (results["inner"], results["own"]), strict=True):
        assert torch.equal(found, expected)
    model.set_strength(0.5)
    assert torch.equal(model(ids).logits, results["own"])


def test_a_strength_block_ends_with_an_error():
    model, ids = two_adapters(), torch.tensor([[5, 6, 7]])
    full = model(ids).logits
    with pytest.raises(ZeroDivisionError), strength(model, 0):
        raise ZeroDivisionError
    with pytest.raises(Exception, match="entries for a batch"):
        model(ids, adapter_names=["first", "first"])
    assert torch.equal(model(ids).logits, full) and not run_state.in_use


@pytest.mark.parametrize("site", ["post_block", "post_mlp", "attention_heads"])
@pytest.mark.parametrize("where", ["prompt", "all"])
@pytest.mark.usefixtures("_many_switches")
def test_checkpointed_blocks_get_the_state_of_their_forward_pass(site, where):
    model = attach(fresh_model("llama"), SteeringConfig(rank=2, site=site, positions=Positions(where)))
    randomise(model)
    ids = torch.randint(3, 90, (3, 6), generator=torch.Generator().manual_seed(0))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradients(number):
        s = (0.5, 2, -1)[number % 3]
        labels = ids.clone()
        labels[:, : 1 + number % 3] = -100
        with strength(model, s):
            loss = model(input_ids=ids, labels=labels).loss
        with strength(model, 0), torch.no_grad():  # a reference policy
            model(input_ids=ids, labels=ids.clone().index_fill_(1, torch.tensor(0), -100))
        return torch.autograd.grad(loss, parameters)

    model.train()
    expected = [gradients(number) for number in range(6)]
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with ThreadPoolExecutor(3) as pool:
        for found, plain in zip(pool.map(gradients, range(6)), expected, strict=True):
            torch.testing.assert_close(found, plain, atol=1e-7, rtol=1e-5)
    assert any(gradient.abs().max() > 0 for gradient in expected[0]) and not run_state.replayed


def test_replicas_of_data_parallel_have_the_strength_of_their_caller():
    [layer, *_] = steering_layers(model := two_adapters()).values()
    with strength(model, 0.5):
        replica = layer._replicate_for_data_parallel()
    assert replica.strength == {"first": 0.5, "second": 0.5} and layer.strength == {"first": 1.0, "second": 1.0}
    assert isinstance(replica, nn.Module)
