"""Llama-3.2-1B's and Llama-3-8B's shapes, random weights, in bfloat16 on a CUDA device, all on the same base but for
full fine-tuning. Fused is with `actshift.fused_kernels()`; compiled is whole graphs by torch.compile, in decoding with
a static cache and CUDA graphs. The peak is that of two steps from the start, beyond the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from actshift import fused_kernels
from actshift.sites.blocks import unwrap
from benchmarks.figure import Figure, Note
from benchmarks.memory import peak_bytes
from benchmarks.methods import METHODS, OURS
from benchmarks.models import Shape
from benchmarks.plain import BASE, FLOOR, FULL, LORA, floor, training_step
from benchmarks.suites.generation import Greedy, speeds, twin
from benchmarks.suites.training import OVER_FLOOR, sizes
from benchmarks.timing import Case, interleaved, milliseconds, ratios

FUSED, COMPILED, LORA_COMPILED = f"{OURS}, fused", f"{OURS}, compiled", f"{LORA}, compiled"


@dataclass(frozen=True)
class Llama(Shape):
    """A Llama 3 on a device, and the batch that it meets."""

    title: str = ""
    inner: int = 0
    heads: int = 32
    tied: bool = False
    device: str = "cuda"

    def __str__(self) -> str:
        return f"{self.title}, {self.batch} × {self.seq} tokens"

    def model(self) -> LlamaForCausalLM:
        """Return the model, the same each time, in evaluation mode."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads // 4,
            tie_word_embeddings=self.tied,
            max_position_embeddings=8192,
        )
        with torch.device(self.device):
            return LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()

    @cached_property
    def ids(self) -> Tensor:
        """The batch, `[batch, seq]`."""
        return super().ids.to(self.device)


ONE = Llama(2048, 16, batch=8, seq=1024, vocabulary=128256, title="Llama-3.2-1B", inner=8192, tied=True)
EIGHT = Llama(4096, 32, batch=4, seq=1024, vocabulary=128256, title="Llama-3-8B", inner=14336)
TINY = Llama(64, 2, batch=2, seq=16, vocabulary=256, title="a tiny Llama", inner=128, heads=4)


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure a training step, its peak, and decoding of one row and of 16; nothing without a CUDA device."""
    if not torch.cuda.is_available():
        yield Note("Not measured: this machine has no CUDA device.")
        return
    rounds, tokens = (2, 4) if quick else (10, 64)
    for shape in (TINY,) if quick else (ONE, EIGHT):
        parts = {"Training": training(shape, rounds), "Full fine-tuning": full(shape, rounds)}
        parts |= {f"Decoding at batch {n}": decoding(shape.with_(batch=n, seq=128), tokens) for n in (1, 16)}
        for name, part in parts.items():
            try:
                yield from part
            except torch.OutOfMemoryError:
                yield Note(f"{name} does not fit on this device: {shape}.")


def training(shape: Llama, rounds: int) -> Iterator[Figure]:
    """Yield the step of each method that leaves the base's weights alone, and its peak beyond the weights."""
    base = shape.model().requires_grad_(False)
    cases: dict[str, Case] = {FLOOR: training_step(floor(twin(base)), shape)}
    for name, method in {LORA: plain, LORA_COMPILED: compiled, OURS: plain, COMPILED: compiled}.items():
        model = METHODS[name.removesuffix(", compiled")](twin(base))
        cases[name] = training_step(method(model, shape), shape)
    cases[FUSED] = fused(training_step(METHODS[OURS](twin(base)), shape))
    yield from timed(cases, rounds, str(shape))


def full(shape: Llama, rounds: int) -> Iterator[Figure]:
    """Yield the step of full fine-tuning beside the floor's, and its peak."""
    cases = {
        name: training_step(method(shape.model()), shape) for name, method in ((FLOOR, floor), (FULL, METHODS[FULL]))
    }
    yield from timed(cases, rounds, f"{shape}, full fine-tuning")


def timed(cases: Mapping[str, Case], rounds: int, where: str) -> Iterator[Figure]:
    """Yield peaks, which come with the first steps, and then times."""
    yield from sizes({name: peak_bytes(step) for name, step in cases.items()}, "peak", where)
    samples = interleaved(cases, rounds, clock=clock)
    yield from milliseconds(samples, "step", where)
    yield from ratios(samples, FLOOR, OVER_FLOOR, where)


@torch.no_grad()
def decoding(shape: Llama, tokens: int) -> Iterator[Figure]:
    """Yield each method's steps of one token over the base's, first as they come, then compiled."""
    base = shape.model().requires_grad_(False)
    models = {BASE: base} | {name: METHODS[name](twin(base)).eval() for name in (LORA, OURS)}
    where = f"batch {shape.batch}, {shape.title}, {shape.seq} prompt tokens"
    rows = {name: Greedy(model, shape.ids) for name, model in models.items()}
    rows[FUSED] = Greedy(models[OURS], shape.ids)
    for one in rows.values():
        one.prefill()
    steps = {name: fused(one.step) if name == FUSED else one.step for name, one in rows.items()}
    samples = interleaved(steps, tokens, clock=clock)
    yield from ratios(samples, BASE, "decode over the base", where)
    yield from speeds(samples, shape, where)
    torch.compiler.reset()
    static = {name: StaticGreedy(model, shape, tokens).step for name, model in models.items()}
    samples = interleaved(static, tokens, clock=clock)
    yield from ratios(samples, BASE, "decode over the base, compiled", f"{where}, compiled")
    yield from speeds(samples, shape, f"{where}, compiled")


class StaticGreedy:
    """A greedy decoding that goes on by one token a step, compiled whole, on a cache whose place does not change."""

    def __init__(self, model: Any, shape: Llama, tokens: int) -> None:
        self.model: Any = unwrap(model)
        self.position = torch.tensor([[shape.seq]], device=shape.device)
        self.cache = StaticCache(self.model.config, max_cache_len=shape.seq + tokens + 8)
        self.chosen = self._best(self.model(input_ids=shape.ids, past_key_values=self.cache, logits_to_keep=1))
        self.compiled = torch.compile(self.model, fullgraph=True, **how(shape, mode="reduce-overhead"))

    def step(self) -> None:
        """Run the tokens that were chosen last."""
        torch.compiler.cudagraph_mark_step_begin()
        output = self.compiled(input_ids=self.chosen, past_key_values=self.cache, position_ids=self.position)
        self.chosen = self._best(output)
        self.position = self.position + 1

    def _best(self, output: Any) -> Tensor:
        return output.logits[:, -1:].argmax(-1)


def plain(model: nn.Module, shape: Llama) -> nn.Module:
    """Leave the model as it is."""
    return model


def compiled(model: nn.Module, shape: Llama) -> nn.Module:
    """Have the model that PEFT's wraps compiled when it is called."""
    unwrap(model).compile(fullgraph=True, **how(shape))
    return model


def how(shape: Llama, **options: str) -> dict[str, str]:
    """Return torch.compile's options; on the CPU, where only tests come, without its compiler of kernels."""
    return options if shape.device == "cuda" else {"backend": "aot_eager"}


def fused(case: Case) -> Callable[[], None]:
    """Return the case with the fused kernels on while it runs."""

    def call() -> None:
        fused_kernels()
        case()
        fused_kernels(False)

    return call


def clock() -> float:
    """Return the seconds when the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
