"""Greedy decoding with the KV cache on one thread. "prefill" is the forward pass over the prompt, "decode" the steps of
one token after it (the models take turns token by token), and "generate" a whole call of `generate` including the
prompt. The models share the weights of the base, and LoRA is not merged. "16 different adapters over one" compares a
batch with a different adapter for each row (`adapter_names`) to the same batch with one active adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from actshift.sites.blocks import unwrap
from benchmarks.figure import Figure, Note
from benchmarks.methods import JOINT, LINEAR, METHODS, OURS, VECTOR, randomised
from benchmarks.models import MIDDLE, SMALL, TINY, Shape
from benchmarks.plain import BASE, LORA, prompts_of, whole_generation
from benchmarks.timing import Samples, interleaved, over, ratios, spread

ALL, FEW = (VECTOR, LINEAR, OURS, JOINT, LORA), (OURS, LORA)
SMALL_ROW, MIDDLE_ROW = SMALL.with_(batch=1, seq=64), MIDDLE.with_(batch=1, seq=64)
SMALL_ROWS, MIDDLE_ROWS = SMALL_ROW.with_(batch=16), MIDDLE_ROW.with_(batch=16, seq=32)
WIDE_ROW = Shape(width=2048, layers=4, batch=1, seq=16)
"""The width of Llama-3.2-1B, with a quarter of its depth."""


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure batches of 1 and 16 on a small and a medium model, and a batch of 1 on a wide model."""
    if quick:
        for batch in (1, 16):
            yield from generation(TINY.with_(batch=batch), ALL, calls=2, tokens=4)
        return
    for shape, compared in {SMALL_ROW: ALL, SMALL_ROWS: ALL, MIDDLE_ROW: ALL, MIDDLE_ROWS: FEW}.items():
        yield from generation(shape, compared, calls=4, tokens=64 if shape.batch == 1 else 32)
    yield from generation(WIDE_ROW, FEW, calls=2, tokens=16)


def generation(shape: Shape, compared: Sequence[str], calls: int, tokens: int) -> Iterator[Figure]:
    """Yield ratios of prefill, decode and `generate` of each method, and of batches with several adapters."""
    where = prompts_of(shape)
    base = shape.model().requires_grad_(False)
    models = {BASE: base} | {name: METHODS[name](twin(base)).eval() for name in compared}
    prefill, decode = in_turns(models, shape, calls, tokens)
    whole = {name: whole_generation(model, shape, tokens) for name, model in models.items()}
    generate = interleaved(whole, calls, warmup=1)
    yield from speeds(decode, shape, where)
    for name, samples in {"prefill": prefill, "decode": decode, "generate": generate}.items():
        yield from ratios(samples, BASE, f"{name} over the base", where)
    for name in (VECTOR, OURS, LORA) if shape.batch > 1 else ():
        if name in compared:
            yield from own_adapters(name, models[name], METHODS[name](twin(base)).eval(), shape, where, calls, tokens)


def own_adapters(
    case: str, single: Any, mixed: Any, shape: Shape, where: str, calls: int, tokens: int
) -> Iterator[Figure]:
    """Yield the ratio of a batch with one adapter per row to a batch with one adapter."""
    named = {"adapter_names": adapters(mixed, shape.batch)}
    whole = {
        "single": whole_generation(single, shape, tokens),
        "mixed": whole_generation(mixed, shape, tokens, **named),
    }
    generate = interleaved(whole, calls, warmup=1)
    with mixed.base_model._enable_peft_forward_hooks(**named):  # like `generate`: once, before the first token
        _, decode = in_turns({"single": single, "mixed": mixed}, shape, 1, tokens)
    name = f"{shape.batch} different adapters over one"
    yield Figure(name, case, where, *over(decode, "mixed", "single"))
    yield Figure(f"{name}, generate", case, where, *over(generate, "mixed", "single"))


@torch.no_grad()
def in_turns(models: Mapping[Any, Any], shape: Shape, calls: int, tokens: int) -> tuple[Samples, Samples]:
    """Return the seconds of prefill, and of each decoding step."""
    rows = {name: Greedy(model, shape.ids) for name, model in models.items()}
    prefill = interleaved({name: row.prefill for name, row in rows.items()}, calls, warmup=1)
    return prefill, interleaved({name: row.step for name, row in rows.items()}, tokens)


def speeds(decode: Samples, shape: Shape, where: str) -> Iterator[Figure]:
    """Yield tokens per second, and the time that a method adds per block and step."""
    for case, seconds in decode.items():
        yield Figure("decode", case, where, *spread([shape.batch / second for second in seconds]), unit="tokens/s")
        if case != BASE:
            added = [1e6 * (time - base) / shape.layers for time, base in zip(seconds, decode[BASE], strict=True)]
            yield Figure("added to a block's step", case, where, *spread(added), unit="µs")


class Greedy:
    """Greedy decoding of some prompts, one token per step."""

    def __init__(self, model: Any, prompts: Tensor) -> None:
        self.model: Any = unwrap(model)  # the model that `generate` calls
        self.prompts = prompts

    def prefill(self) -> None:
        """Run the forward pass over the prompts."""
        self._keep(self.model(input_ids=self.prompts, use_cache=True, logits_to_keep=1))

    def step(self) -> None:
        """Decode one more token for each prompt."""
        self._keep(self.model(input_ids=self.chosen, past_key_values=self.cache, use_cache=True))

    def _keep(self, output: Any) -> None:
        self.cache, self.chosen = output.past_key_values, output.logits[:, -1:].argmax(-1)


def twin(model: Any) -> Any:
    """Return a copy that shares the weights, so interleaved models use the CPU caches like one model."""
    return deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def adapters(model: Any, count: int) -> list[str]:
    """Add adapters of the same kind until the model has `count`, and return their names."""
    names = ["default", *(f"a{number}" for number in range(1, count))]
    for name in names[1:]:
        model.add_adapter(name, deepcopy(model.peft_config["default"]))
        model.set_adapter(name)
        randomised(model)
    return names
